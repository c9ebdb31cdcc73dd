"""Slows down in front of a wall: the speed is half the smallest distance, at most 1 m/s."""

import numpy as np
import pyarrow as pa
from dora import Node


def main() -> None:
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            nearest = float(np.min(event["value"].to_numpy()))
            speed = max(0.0, min(1.0, nearest / 2))
            node.send_output("speed", pa.array([speed]), {"scan": event["metadata"]["scan"]})


if __name__ == "__main__":
    main()
