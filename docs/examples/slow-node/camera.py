"""Sends 50 images, one at each tick."""

import numpy as np
import pyarrow as pa
from dora import Node

IMAGES = 50


def main() -> None:
    """Send the images, then end."""
    node = Node()
    image = pa.array(np.zeros(64 * 48, np.uint8))
    sent = 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("image", image)
            sent += 1
            if sent == IMAGES:
                break


if __name__ == "__main__":
    main()
