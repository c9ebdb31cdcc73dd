"""Asks where the arm is, moves it, and breaks off a second move."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Call the service, then send two goals."""
    node = Node()
    position = node.call("where", b"", timeout=30, reply="position")["value"][0]
    print(f"the arm is at {position}")

    goal = node.send_goal("goal", pa.array([1.0]), timeout=60, cancel="cancel")
    progress = [event["value"][0].as_py() for event in goal]
    reached = goal.result()["value"][0]
    print(f"moved to {reached}, progress in order: {progress == sorted(progress)}")

    goal = node.send_goal("goal", pa.array([9.0]), timeout=60, cancel="cancel")
    for event in goal:
        if event["value"][0].as_py() > 1.5:
            goal.cancel()
            break
    at = goal.result()["value"][0].as_py()
    print(f"the second goal was {goal.status}, before 9.0: {at < 9.0}")


if __name__ == "__main__":
    main()
