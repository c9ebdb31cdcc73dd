"""Sends a map of 400 x 400 cells once, and keeps running for three seconds."""

from dora import Node

SHAPE = (400, 400)
TICKS = 30


def main() -> None:
    """Draw a wall, send the map, and wait."""
    node = Node()
    grid = node.empty(SHAPE, "uint8")
    grid[:] = 0
    grid[200] = 1
    node.send_output("map", grid, {"shape": list(SHAPE)})
    for number, event in enumerate(node):
        if event["type"] == "STOP" or number == TICKS:
            break


if __name__ == "__main__":
    main()
