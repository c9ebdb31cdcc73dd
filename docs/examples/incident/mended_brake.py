"""Brakes harder the nearer an obstacle is, and keeps the last force when there is no echo."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send a force for each distance."""
    node = Node()
    force = 0.0
    for event in node:
        if event["type"] == "INPUT":
            distance = event["value"][0].as_py()
            if distance > 0:
                force = min(1.0, 1.0 / distance)
            node.send_output("force", pa.array([force]))


if __name__ == "__main__":
    main()
