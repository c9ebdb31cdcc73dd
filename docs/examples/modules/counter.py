"""Sends an offset, and the numbers from 1 to 5."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send the numbers, then end."""
    node = Node()
    node.send_output("offset", pa.array([100]))
    for number in range(1, 6):
        node.send_output("number", pa.array([number]))


if __name__ == "__main__":
    main()
