"""Fills arrays in shared memory, and sends them."""

import time

import numpy as np
from dora import Node

ARRAYS = 20
SHAPE = (1024, 1024)
"""Of float64: 8 MiB."""


def main() -> None:
    """Send one array for each tick; `send_output` sends its location, not its content."""
    node = Node()
    sent = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        field = node.empty(SHAPE, np.float64)
        field[:] = sent  # the only time that these bytes are written
        now = time.monotonic_ns()
        node.send_output("field", field, {"rows": SHAPE[0], "sent_ns": now})
        sent += 1
        if sent == ARRAYS:
            break


if __name__ == "__main__":
    main()
