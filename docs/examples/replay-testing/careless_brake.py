"""Slows down as `brake.py` does, but looks at the mean distance: the test must find that."""

import numpy as np
import pyarrow as pa
from dora import Node


def main() -> None:
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            mean = float(np.mean(event["value"].to_numpy()))
            speed = max(0.0, min(1.0, mean / 2))
            node.send_output("speed", pa.array([speed]), {"scan": event["metadata"]["scan"]})


if __name__ == "__main__":
    main()
