"""Sends five scans, then fails."""

import pyarrow as pa
from dora import Node

SCANS = 5


def main() -> None:
    """Scan until the laser breaks."""
    node = Node()
    scans = 0
    for event in node:
        if event["type"] == "INPUT":
            if scans == SCANS:
                raise OSError("the laser does not answer")
            node.send_output("points", pa.array([0.5, 1.5, 2.5]))
            scans += 1


if __name__ == "__main__":
    main()
