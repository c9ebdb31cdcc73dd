"""Counts readings, and crashes after the first three; what waits is there after the restart."""

import sys

from dora import Node

CRASH_AFTER = 3


def main() -> None:
    """Print what happens."""
    node = Node()
    received: list[tuple[int, int]] = []
    for event in node:
        if event["type"] == "INPUT":
            received.append((event["metadata"]["life"], event["value"][0].as_py()))
            if len(received) == CRASH_AFTER and not node.is_restart():
                print(f"received {received}, and crash")
                sys.exit(1)
        elif event["type"] == "NODE_RESTARTED":
            print(f"{event['id']} is started again")
    print(f"received {len(received)} more, the last {received[-1]}")


if __name__ == "__main__":
    main()
