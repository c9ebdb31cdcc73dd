"""Sends back what it gets, with its metadata."""

from dora import Node


def main() -> None:
    """Send back each message."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("message", event["value"], event["metadata"])


if __name__ == "__main__":
    main()
