"""Prints when the heating is switched."""

from dora import Node


def main() -> None:
    """Print every switch."""
    for event in Node():
        if event["type"] == "INPUT":
            print(f"heater {'on' if event['value'][0].as_py() else 'off'}")


if __name__ == "__main__":
    main()
