"""Answers questions with tools, by a plan; a real agent asks a language model which to use."""

import json

import pyarrow as pa
from dora import Node

PLAN = [
    ("how loud can you greet", "makes text loud", "hello"),
    ("how long is a rope of 3 and 4 m", "adds numbers", "3 4"),
]


class Agent:
    """What the agent knows: its tools, and the questions that are open."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tools: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self._open = list(PLAN)

    def offer(self, tool: str, ability: str) -> None:
        """Take note of a tool."""
        self._tools[ability] = tool

    def forget(self, tool: str) -> None:
        """Forget a tool that has gone."""
        self._tools = {ability: name for ability, name in self._tools.items() if name != tool}

    def ask(self) -> None:
        """Send the next open question to a tool that can answer it."""
        question, ability, argument = self._open[0]
        tool = self._tools.get(ability)
        if tool is None:
            print(f"{question}: no tool {ability}")
            return
        self._open.append(self._open.pop(0))  # the questions come again and again
        request = pa.array([json.dumps({"tool": tool, "argument": argument})])
        self._asked[self._node.send_service_request("request", request)] = question

    def answer(self, tool: str, request_id: str, result: str) -> None:
        """Print the answer of a tool to one of the questions."""
        if (question := self._asked.pop(request_id, None)) is not None:
            print(f"{question}: {tool} says it is {result}")


def main() -> None:
    """React to offers, answers and ticks."""
    node = Node()
    agent = Agent(node)
    for event in node:
        tool, _, kind = event.get("id", "").rpartition("-")
        if event["type"] == "INPUT_CLOSED":
            agent.forget(tool)
        elif event["type"] == "INPUT" and kind == "offer":
            agent.offer(tool, event["value"][0].as_py())
        elif event["type"] == "INPUT" and kind == "answer":
            agent.answer(tool, event["metadata"]["request_id"], event["value"][0].as_py())
        elif event["type"] == "INPUT":
            agent.ask()


if __name__ == "__main__":
    main()
