"""Passes each message on, with its metadata."""

from dora import Node


def main() -> None:
    """Relay until the node before has gone."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("message", event["value"], event["metadata"])


if __name__ == "__main__":
    main()
