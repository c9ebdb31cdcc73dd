"""Sends pictures of two balls that move in opposite directions."""

import numpy as np
import pyarrow as pa
from dora import Node

WIDTH, HEIGHT, PICTURES, RADIUS = 160, 60, 60, 4


def picture(number: int) -> np.ndarray:
    """Return one picture: white balls on black."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for at_x, at_y in ((10 + 2 * number, 20), (140 - 2 * number, 40)):
        image[(x - at_x) ** 2 + (y - at_y) ** 2 <= RADIUS**2] = 255
    return image


def main() -> None:
    """Send a picture for each tick."""
    node = Node()
    metadata = {"width": WIDTH, "height": HEIGHT, "encoding": "mono8"}
    for number in range(PICTURES):
        if node.next()["type"] == "STOP":
            break
        node.send_output("image", pa.array(picture(number).reshape(-1)), metadata)


if __name__ == "__main__":
    main()
