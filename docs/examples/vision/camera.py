"""A camera that walks along a wall of photographs, 640x480 pixels, 30 frames a second.

Each frame is written once, straight into shared memory, and never copied after that. With FRAMES
in its environment it ends after so many.
"""

import math
import os
import time

import gallery
import numpy as np
from dora import Node

WIDTH, HEIGHT = 640, 480
FRAMES_PER_PHOTO = 48


def viewpoint(frame: int) -> tuple[int, int]:
    """Return the left and top of the camera's window: it rests at each photo, then moves on."""
    photos = frame / FRAMES_PER_PHOTO
    resting = photos - 0.85 * math.sin(math.tau * photos) / math.tau
    left = gallery.SLOT_WIDTH * (resting + 0.5) - WIDTH / 2
    top = (gallery.WALL_HEIGHT - HEIGHT) / 2 * (1 + 0.7 * math.sin(photos * 2.3))
    return round(left), round(top)


def main() -> None:
    """Send one frame for each tick."""
    print("hanging the photographs on the wall")
    wall = gallery.wall()
    turn = wall.shape[1]
    endless = np.concatenate([wall, wall[:, :WIDTH]], axis=1)
    last = int(os.environ.get("FRAMES", "0"))

    node = Node()
    frame = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        captured_ns = time.monotonic_ns()
        left, top = viewpoint(frame)
        left %= turn
        image = node.empty((HEIGHT, WIDTH, 3), np.uint8)
        image[:] = endless[top : top + HEIGHT, left : left + WIDTH]
        node.send_output(
            "image",
            image,
            {
                "width": WIDTH,
                "height": HEIGHT,
                "encoding": "rgb8",
                "frame": frame,
                "captured_ns": captured_ns,
            },
        )
        frame += 1
        if frame == last:
            break


if __name__ == "__main__":
    main()
