"""Takes a picture at each tick, but loses every N-th one, and those that would come late."""

import argparse

import numpy as np
import pyarrow as pa
from dora import Node

PICTURES = 40
LATE_S = 0.01


def main() -> None:
    """Send pictures, with the time of each in its metadata."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lose", type=int, required=True)
    lose = parser.parse_args().lose
    node = Node()
    pixels = pa.array(np.zeros(640 * 480, dtype=np.uint8))
    taken = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        if taken == PICTURES:
            break
        taken += 1
        due = event["metadata"]["timestamp"]
        late = (node.timestamp() - due).total_seconds()
        if taken % lose != 0 and late < LATE_S:
            node.send_output("image", pixels, {"taken": due})


if __name__ == "__main__":
    main()
