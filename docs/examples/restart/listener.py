"""Counts readings, and crashes after the first three; the others wait for the next process."""

import sys

from dora import Node

CRASH_AFTER = 3


def main() -> None:
    """Print readings and restarts."""
    node = Node()
    received: list[tuple[int, int]] = []
    for event in node:
        if event["type"] == "INPUT":
            received.append((event["metadata"]["process"], event["value"][0].as_py()))
            if len(received) == CRASH_AFTER and not node.is_restart():
                print(f"received {received}; crashing")
                sys.exit(1)
        elif event["type"] == "NODE_RESTARTED":
            print(f"{event['id']} is restarted")
    print(f"received {len(received)} more, the last {received[-1]}")


if __name__ == "__main__":
    main()
