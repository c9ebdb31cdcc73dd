"""Grips each part with a force that suits its weight."""

import pyarrow as pa
from dora import Node

FORCE_PER_KG = 10.0


def main() -> None:
    """Send the force, in newtons."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            weight_kg = event["value"][0].as_py()
            sent = {"number": event["metadata"]["number"], "weight_kg": weight_kg}
            node.send_output("force", pa.array([FORCE_PER_KG * weight_kg]), sent)


if __name__ == "__main__":
    main()
