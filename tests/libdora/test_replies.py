"""Services and actions between nodes in C and in Python."""

from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import Compile, add

HERE = Path(__file__).parent

SERVER = """
import time
from dora import Node

node = Node()

@node.serve("request", "answer")
def answer(event):
    text = event["value"].to_numpy().tobytes().decode()
    if text == "fail":
        raise ValueError("no such thing")
    if text == "sleep":
        time.sleep(2)
    if text == "die":
        import os
        os._exit(3)
    for turn in range(3):
        node.send_output("answer", b"ordinary")
    return text.upper().encode()

node.serve()
"""

ACTIONS = """
from dora import Node

node = Node()

@node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
def count(goal):
    steps = int(goal.value.to_numpy().tobytes())
    if steps == 0:
        raise ValueError("nothing to count")
    for step in range(steps):
        goal.feedback(str(step).encode())
        if goal.wait(20 if steps == 1000 else 0.01):
            break
    return b"counted"

node.serve()
"""


@pytest.fixture
def client(compile_node: Compile) -> Path:
    return compile_node("client", HERE / "client.c")


def lines_of(output: str, node: str = "client") -> list[str]:
    mark = f"stdout {node}: "
    return [line.partition(mark)[2] for line in output.splitlines() if mark in line]


def service(flow: Flow, client: Path, args: str, server: str = SERVER, **options: object) -> None:
    inputs = {"answer": {"source": "server/answer", "queue_size": 50}}
    add(flow, "client", client, args=args, inputs=inputs, outputs=["request"])
    flow.node("server", server, inputs={"request": "client/request"}, outputs=["answer"])
    flow.nodes[-1].update(options)


def test_a_call_returns_its_answer_and_the_rest_follows_in_order(flow: Flow, client: Path) -> None:
    service(flow, client, "call=one call=two rest=6")
    lines = lines_of(flow.run().expect(0).output)
    assert lines == ["0 ONE", "0 TWO", "rest 6"]


def test_an_error_of_the_handler_reaches_the_caller(flow: Flow, client: Path) -> None:
    service(flow, client, "call=fail call=next")
    assert lines_of(flow.run().expect(0).output) == ["-6  ValueError: no such thing", "0 NEXT"]


def test_a_late_answer_is_dropped(flow: Flow, client: Path) -> None:
    service(flow, client, "hurry=sleep call=next rest=6")
    lines = lines_of(flow.run().expect(0).output)
    assert lines == ["-3  no reply from node `server` within 300 ms", "0 NEXT", "rest 6"]


@pytest.mark.parametrize("restarts", [True, False])
def test_a_server_that_dies_ends_the_wait(flow: Flow, client: Path, restarts: bool) -> None:
    options = {"restart_policy": "on-failure"} if restarts else {}
    service(flow, client, "call=die" + " call=next" * restarts, **options)
    lines = lines_of(flow.run().output)
    assert lines[0].startswith("-4  node `server`"), lines
    assert lines[1:] == ["0 NEXT"] * restarts


def test_a_call_without_a_server_is_refused(flow: Flow, client: Path) -> None:
    add(flow, "client", client, args="call=one", outputs=["request"])
    (line,) = lines_of(flow.run().expect(0).output)
    assert line.startswith(
        "-2  no node replies to output `request`: give the one that does an input"
    )


def actions(flow: Flow, client: Path, args: str) -> list[str]:
    inputs = {"feedback": "server/feedback", "result": "server/result"}
    add(flow, "client", client, args=args, inputs=inputs, outputs=["goal", "cancel"])
    source = {"goal": "client/goal", "cancel": "client/cancel"}
    flow.node("server", ACTIONS, inputs=source, outputs=["feedback", "result"])
    return lines_of(flow.run().expect(0).output)


def test_a_goal_sends_feedback_and_its_result(flow: Flow, client: Path) -> None:
    assert actions(flow, client, "goal=2 goal=0") == [
        "feedback - 0 0",
        "feedback - 0 1",
        "result succeeded 0 counted",
        "-6  ValueError: nothing to count",
    ]


def test_a_goal_can_be_canceled(flow: Flow, client: Path) -> None:
    assert actions(flow, client, "cancel=1000") == ["feedback - 0 0", "result canceled 0 counted"]
