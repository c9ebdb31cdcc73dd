"""Moves two arms, one step at a time, each to its goal."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Handle goals until the dataflow ends."""
    node = Node()

    @node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
    def move(goal):
        position = 0
        while position < goal.value[0].as_py():
            position += 1
            goal.feedback(pa.array([position]))
            if goal.wait(0.01):
                break
        return pa.array([position])

    node.serve()


if __name__ == "__main__":
    main()
