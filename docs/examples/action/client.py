"""Sends two goals at once, and cancels one of them."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Move the left arm to 40, and the right one until it has passed 10."""
    node = Node()
    left = node.send_goal("goal", pa.array([40]), timeout=60)
    right = node.send_goal("goal", pa.array([100_000]), timeout=60)

    for event in right:
        if event["value"][0].as_py() > 10:
            right.cancel()
            break
    at = right.result()["value"][0].as_py()
    print(f"right: {right.status}, before 100000: {at < 100_000}")

    steps = [event["value"][0].as_py() for event in left]
    result = left.result()
    print(
        f"left: {left.status} at {result['value'][0]}, feedback in order: {steps == sorted(steps)}"
    )


if __name__ == "__main__":
    main()
