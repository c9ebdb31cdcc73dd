"""Moves to goals, and says where it is."""

import pyarrow as pa
from dora import Node

STEP_M = 0.05
STEP_S = 0.01


class Arm:
    """The simulated arm."""

    def __init__(self) -> None:
        self._position = 0.0

    def where(self, event):
        """Answer a request."""
        return pa.array([round(self._position, 3)])

    def move(self, goal):
        """Carry out a goal."""
        target = goal.value[0].as_py()
        print(f"moving to {target}")
        while self._position < target - STEP_M / 2 and not goal.wait(STEP_S):
            self._position += STEP_M
            goal.feedback(pa.array([self._position]))
        return pa.array([round(self._position, 3)])


def main() -> None:
    """Serve until the dataflow ends."""
    node = Node()
    arm = Arm()
    node.serve("where", "position")(arm.where)
    node.serve_goals("goal", "result", feedback="progress", cancel="cancel")(arm.move)
    node.serve()


if __name__ == "__main__":
    main()
