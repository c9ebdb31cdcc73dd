"""Heats in proportion to the missing degrees."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send the heat for each temperature."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            degrees, wanted = event["value"].to_pylist()
            node.send_output("heat", pa.array([node.param("gain") * (wanted - degrees)]))


if __name__ == "__main__":
    main()
