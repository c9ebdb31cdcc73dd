"""Counts the ticks of three timers for a little over two seconds."""

import time
from collections import Counter

from dora import Node

DURATION_S = 2.05


def main() -> None:
    """Count, then print one line for each timer."""
    node = Node()
    began = time.monotonic()
    ticks: Counter[str] = Counter()
    for event in node:
        if event["type"] == "INPUT":
            ticks[event["id"]] += 1
        if time.monotonic() - began > DURATION_S:
            break
    for timer, count in sorted(ticks.items()):
        print(f"{timer}: {count} ticks in {DURATION_S} s")


if __name__ == "__main__":
    main()
