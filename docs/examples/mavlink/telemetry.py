"""Counts heartbeats, and keeps the greatest height."""

from dora import Node


def main() -> None:
    """Print a summary at the end."""
    beats, highest = 0, 0.0
    for event in Node():
        if event["type"] == "INPUT" and event["id"] == "heartbeat":
            beats += 1
        elif event["type"] == "INPUT":
            highest = max(highest, -event["value"][0].as_py()["z"])
    print(f"highest {highest:.1f} m, {beats} heartbeats")


if __name__ == "__main__":
    main()
