"""Sends pictures with a spot that moves to the right."""

import numpy as np
import pyarrow as pa
from dora import Node
from messages import image

PICTURES = 8


def main() -> None:
    """Send one picture for each tick; then try to send an array of another type."""
    node = Node()
    for number in range(PICTURES):
        if node.next() is None:
            return
        picture = np.zeros((48, 64), np.uint8)
        picture[20:24, 4 * number : 4 * number + 4] = 200 + number
        node.send_output("image", image(picture))
    try:
        node.send_output("image", pa.array([1.0, 2.0]))
    except RuntimeError as error:
        print(error)


if __name__ == "__main__":
    main()
