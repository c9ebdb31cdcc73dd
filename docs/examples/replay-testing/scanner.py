"""Sends fifty scans of a wall that comes closer."""

import numpy as np
import pyarrow as pa
from dora import Node

SCANS = 50


def main() -> None:
    node = Node()
    rng = np.random.default_rng()
    for scan in range(SCANS):
        if node.next() is None:
            break
        distances = 5.0 - scan * 0.1 + rng.random(16, dtype=np.float32) * 0.2
        node.send_output("distances", pa.array(distances), {"scan": scan})


if __name__ == "__main__":
    main()
