"""Doubles all numbers; in message $SABOTAGE it makes a mistake."""

import os

import pyarrow as pa
from dora import Node


def main() -> None:
    """Send each array doubled, with the metadata that it came with."""
    node = Node()
    sabotage = int(os.environ.get("SABOTAGE", "-1"))
    for event in node:
        if event["type"] == "INPUT":
            doubled = 2 * event["value"].to_numpy()
            if event["metadata"]["number"] == sabotage:
                doubled[0] += 1
            node.send_output("doubled", pa.array(doubled), event["metadata"])


if __name__ == "__main__":
    main()
