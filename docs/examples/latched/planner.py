"""Needs the map; crashes a moment after its first start, and ends a moment after its second."""

import sys

from dora import Node

TICKS = 5


def main() -> None:
    """Wait for a few ticks, then print whether there is a map."""
    node = Node()
    walls, ticks = None, 0
    for event in node:
        if event["type"] == "STOP":
            break
        if event["type"] != "INPUT":
            continue
        if event["id"] == "map":
            shape = event["metadata"]["shape"]
            walls = int(event["value"].to_numpy().reshape(shape).sum())
        else:
            ticks += 1
        if ticks >= TICKS and (walls or node.is_restart()):
            break
    known = "no map" if walls is None else f"a map with {walls} cells of wall"
    print(f"start {node.restart_count() + 1}: {known}")
    if not node.is_restart():
        sys.exit(1)


if __name__ == "__main__":
    main()
