"""Sends a message back if its metadata ask for that."""

from dora import Node


def main() -> None:
    """Send back until the other side ends."""
    node = Node()
    for event in node:
        if event["type"] == "INPUT" and event["metadata"]["back"]:
            node.send_output("pong", event["value"])


if __name__ == "__main__":
    main()
