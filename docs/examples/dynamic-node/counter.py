"""Counts ticks until it is stopped."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send the count at each tick."""
    node = Node()
    count = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        count += 1
        node.send_output("count", pa.array([count]))
        if count == 1:
            print("counting; start the viewer with: python viewer.py")


if __name__ == "__main__":
    main()
