"""Sees a part at each tick, and says how heavy it is."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Number the parts."""
    node = Node()
    number = 0
    for event in node:
        if event["type"] == "INPUT":
            number += 1
            weight_kg = 0.5 + number % 3
            node.send_output("part", pa.array([weight_kg]), {"number": number})


if __name__ == "__main__":
    main()
