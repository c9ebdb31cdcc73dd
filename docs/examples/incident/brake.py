"""Brakes harder the nearer an obstacle is."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send a force for each distance."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            force = min(1.0, 1.0 / event["value"][0].as_py())
            node.send_output("force", pa.array([force]))


if __name__ == "__main__":
    main()
