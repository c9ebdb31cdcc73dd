"""Sends sixty readings."""

import pyarrow as pa
from dora import Node

READINGS = 60


def main() -> None:
    """Send one reading for each tick."""
    node = Node()
    for number in range(READINGS):
        if node.next()["type"] == "STOP":
            break
        node.send_output("reading", pa.array([number]))


if __name__ == "__main__":
    main()
