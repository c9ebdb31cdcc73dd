"""Measures ten times, then ends."""

import math

import pyarrow as pa
from dora import Node

READINGS = 10


def main() -> None:
    """Send one reading for each tick."""
    node = Node()
    sent = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        node.send_output("reading", pa.array([20 + math.sin(sent)]))
        sent += 1
        if sent == READINGS:
            break


if __name__ == "__main__":
    main()
