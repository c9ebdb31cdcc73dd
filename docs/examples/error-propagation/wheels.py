"""Sends the speed of the wheels for two seconds."""

import pyarrow as pa
from dora import Node

TICKS = 40


def main() -> None:
    """Send at each tick."""
    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "STOP" or number == TICKS:
            break
        node.send_output("speed", pa.array([0.3]))


if __name__ == "__main__":
    main()
