"""Finds the spot in each picture, which it reads in place."""

import numpy as np
from dora import Node
from messages import Image, spot, vector3


def main() -> None:
    """Send the spot of each picture, with its track so far."""
    node = Node()
    track: list[float] = []
    for event in node:
        if event["type"] != "INPUT":
            continue
        pixels = Image(event["value"]).pixels[:, :, 0]
        rows, columns = np.nonzero(pixels == pixels.max())
        track.append(float(columns.mean()))
        centre = vector3(columns.mean(), rows.mean(), 0)
        node.send_output("spot", spot(centre, int(pixels.max()), track, "bright"))


if __name__ == "__main__":
    main()
