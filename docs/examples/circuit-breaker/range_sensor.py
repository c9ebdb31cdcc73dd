"""Sends distances, is silent for a while, sends again, and ends."""

import time

import pyarrow as pa
from dora import Node

PERIOD_S = 0.05
SILENCE_S = 1.5


def main() -> None:
    """Send twice for half a second, with silence between."""
    node = Node()
    for half in range(2):
        for _ in range(10):
            node.send_output("distance", pa.array([1.5 + half]))
            time.sleep(PERIOD_S)
        if half == 0:
            time.sleep(SILENCE_S)


if __name__ == "__main__":
    main()
