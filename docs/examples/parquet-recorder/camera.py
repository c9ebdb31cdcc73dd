"""Sends 25 grey pictures."""

import numpy as np
import pyarrow as pa
from dora import Node

WIDTH, HEIGHT, FRAMES = 64, 48, 25


def main() -> None:
    """Send a picture for each tick."""
    node = Node()
    for frame in range(FRAMES):
        if node.next()["type"] == "STOP":
            break
        image = np.full(WIDTH * HEIGHT, frame, np.uint8)
        metadata = {"frame": frame, "width": WIDTH, "height": HEIGHT, "encoding": "mono8"}
        node.send_output("image", pa.array(image), metadata)


if __name__ == "__main__":
    main()
