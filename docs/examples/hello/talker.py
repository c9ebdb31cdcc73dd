"""Says hello five times, then leaves."""

import pyarrow as pa
from dora import Node

GREETINGS = 5


def main() -> None:
    """Send one greeting for each tick."""
    node = Node()
    said = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        said += 1
        node.send_output("greeting", pa.array([f"hello {said}"]))
        if said == GREETINGS:
            break


if __name__ == "__main__":
    main()
