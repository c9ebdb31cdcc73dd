"""Prints the spots."""

from dora import Node
from messages import Spot


def main() -> None:
    """Print one line for each spot."""
    for event in Node():
        if event["type"] == "INPUT":
            spot = Spot(event["value"])
            x, y, _ = spot.centre.numpy()
            way = spot.track[-1] - spot.track[0]
            print(f"{spot.label} {spot.brightness} at {x:g}, {y:g}, moved by {way:g}")


if __name__ == "__main__":
    main()
