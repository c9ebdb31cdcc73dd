"""Forwards each message, with its metadata."""

from dora import Node


def main() -> None:
    """Forward messages until the source has ended."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("message", event["value"], event["metadata"])


if __name__ == "__main__":
    main()
