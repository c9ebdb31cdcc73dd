"""Sends ten frames, each a picture with its depth and the angles of an arm."""

import numpy as np
from arrays import pack
from dora import Node

FRAMES = 10


def main() -> None:
    """Send all frames, then end."""
    node = Node()
    for number in range(FRAMES):
        frame = {
            "image": np.full((120, 160, 3), number, np.uint8),
            "depth": np.full((120, 160), number, np.float32),
            "angles": np.full(6, number, np.float64),
        }
        node.send_output("frame", *pack(frame))


if __name__ == "__main__":
    main()
