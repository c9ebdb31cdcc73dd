"""Finds bright spots in pictures."""

import numpy as np
import pyarrow as pa
from dora import Node


def spots(image: np.ndarray) -> list[dict[str, float]]:
    """Return the centre of each group of rows with something bright in them."""
    bright = image > 128
    rows = np.flatnonzero(bright.any(axis=1))
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    centres = []
    for group in groups:
        y, x = np.nonzero(bright[group[0] : group[-1] + 1])
        centres.append({"x": float(x.mean()), "y": float(group[0] + y.mean())})
    return centres


def main() -> None:
    """Send the spots of each picture, the rightmost first: their order means nothing."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            metadata = event["metadata"]
            image = event["value"].to_numpy().reshape(metadata["height"], metadata["width"])
            ordered = sorted(spots(image), key=lambda spot: -spot["x"])
            node.send_output("positions", pa.array(ordered))


if __name__ == "__main__":
    main()
