"""Checks that all messages arrive in order, and measures how long they took."""

import time
from statistics import median

from dora import Node

EXPECTED = list(range(20))


def main() -> None:
    """Collect until the chain has ended."""
    numbers: list[int] = []
    took_ms: list[float] = []
    for event in Node():
        if event["type"] == "INPUT":
            took_ms.append((time.monotonic_ns() - event["metadata"]["sent_ns"]) / 1e6)
            numbers.append(event["value"][0].as_py())
    order = "in order" if numbers == sorted(numbers) else "out of order"
    print(f"arrived {len(numbers)} of {len(EXPECTED)}, {order}")
    if missing := sorted(set(EXPECTED) - set(numbers)):
        print(f"missing: {missing}")
    if took_ms:
        print(f"through six nodes in {median(took_ms):.2f} ms")


if __name__ == "__main__":
    main()
