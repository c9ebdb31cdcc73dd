"""Sends five readings in each of its processes; the first two end with a crash."""

import sys

import pyarrow as pa
from dora import Node

READINGS = 5
PROCESSES = 3


def main() -> None:
    """Send readings, with the number of the process in the metadata."""
    node = Node()
    process = node.restart_count() + 1
    for number in range(READINGS):
        node.send_output("reading", pa.array([number]), {"process": process})
    if process < PROCESSES:
        sys.exit(1)


if __name__ == "__main__":
    main()
