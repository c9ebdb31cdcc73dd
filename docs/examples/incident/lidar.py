"""Sends forty distances; one of them is 0, as real lidars do for no echo."""

import pyarrow as pa
from dora import Node

DISTANCES = [4.0 - number * 0.1 for number in range(30)] + [0.0] + [1.0] * 9


def main() -> None:
    """Send one distance for each tick."""
    node = Node()
    for distance in DISTANCES:
        if node.next()["type"] == "STOP":
            break
        node.send_output("distance", pa.array([distance]))


if __name__ == "__main__":
    main()
