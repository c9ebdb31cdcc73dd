"""Computes Fibonacci sequences, one number at a time, and rejects orders below 1 or above 40."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Handle goals until the dataflow ends."""
    node = Node()

    @node.serve("goal_request", "goal_response")
    def accept(event):
        return pa.array([0 < event["value"].field("order")[0].as_py() <= 40])

    @node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
    def compute(goal):
        sequence = [0, 1]
        while len(sequence) < goal.value.field("order")[0].as_py():
            sequence.append(sequence[-2] + sequence[-1])
            goal.feedback(pa.array([{"sequence": sequence}]))
            if goal.wait(0.25):
                break
        return pa.array([{"sequence": sequence}])

    node.serve()


if __name__ == "__main__":
    main()
