"""Measures latencies of four sizes of messages, then throughput."""

import statistics
import time

import numpy as np
from dora import Node

SIZES = [8, 1_000, 100_000, 4_000_000]
ROUNDS = 100
BURST = 50


def round_trip_s(node: Node, size: int) -> float:
    """Send a message, wait until it is back, and return the time in seconds."""
    array = node.empty(size)
    array[:] = 1
    began = time.perf_counter()
    node.send_output("ping", array, {"back": True})
    assert len(node.next(timeout=30)["value"]) == size
    return time.perf_counter() - began


def main() -> None:
    """Print a line for each size, and one for the throughput."""
    node = Node()
    for size in SIZES:
        round_trip_s(node, size)
        median = statistics.median(round_trip_s(node, size) for _ in range(ROUNDS))
        print(f"{size:9,} B {median * 1e6:6.0f} µs there and back, median of {ROUNDS}")
    began = time.perf_counter()
    for number in range(BURST):
        array = node.empty(SIZES[-1])
        array[:] = np.uint8(number)
        node.send_output("ping", array, {"back": number == BURST - 1})
    node.next(timeout=30)
    rate = BURST * SIZES[-1] / (time.perf_counter() - began)
    print(f"{rate / 1e6:,.0f} MB/s in messages of {SIZES[-1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
