"""Sends five greetings, then ends."""

import pyarrow as pa
from dora import Node

GREETINGS = 5


def main() -> None:
    """Send one greeting for each tick."""
    node = Node()
    sent = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        sent += 1
        node.send_output("greeting", pa.array([f"hello {sent}"]))
        if sent == GREETINGS:
            break


if __name__ == "__main__":
    main()
