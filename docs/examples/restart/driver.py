"""Sends five readings in each of its lives, and crashes at the end of the first two."""

import sys

import pyarrow as pa
from dora import Node

READINGS = 5
LIVES = 3


def main() -> None:
    """Send; the reading says in which life it was taken."""
    node = Node()
    life = node.restart_count() + 1
    for number in range(READINGS):
        node.send_output("reading", pa.array([number]), {"life": life})
    if life < LIVES:
        sys.exit(1)


if __name__ == "__main__":
    main()
