"""Sends a thousand square numbers as fast as its subscribers take them."""

import pyarrow as pa
from dora import Node

MESSAGES = 1000


def main() -> None:
    """Send all messages, then end."""
    node = Node()
    for number in range(MESSAGES):
        node.send_output("square", pa.array([number * number]))


if __name__ == "__main__":
    main()
