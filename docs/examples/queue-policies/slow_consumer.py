"""Needs 20 ms for each number, four times as long as the source."""

import time

from dora import Node

WORK_S = 0.02


def main() -> None:
    """Count received and dropped numbers."""
    received: list[int] = []
    sent = 0
    for event in Node():
        if event["type"] == "INPUT":
            received.append(event["value"][0].as_py())
            sent = event["metadata"]["of"]
            time.sleep(WORK_S)
    dropped = sent - len(received)
    print(f"received {len(received)} of {sent}, dropped {dropped}, the last was {received[-1]}")


if __name__ == "__main__":
    main()
