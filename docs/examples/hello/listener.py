"""Prints greetings until the talker has ended."""

from dora import Node


def main() -> None:
    """Print every greeting, and why the stream ended."""
    for event in Node():
        if event["type"] == "INPUT":
            print(f"heard: {event['value'][0].as_py()}")
        elif event["type"] == "STOP":
            print(f"done: {event['id']}")


if __name__ == "__main__":
    main()
