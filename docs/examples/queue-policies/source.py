"""Sends sixty numbers, one every 5 ms, and prints how long it waited for its consumer."""

import time

import pyarrow as pa
from dora import Node

NUMBERS = 60
PERIOD_S = 0.005


def main() -> None:
    """Send, and measure the time spent inside `send_output`."""
    node = Node()
    waited = 0.0
    for number in range(NUMBERS):
        before = time.perf_counter()
        node.send_output("number", pa.array([number]), {"of": NUMBERS})
        waited += time.perf_counter() - before
        time.sleep(PERIOD_S)
    print(f"sent {NUMBERS}, waited for {waited:.2f} s")


if __name__ == "__main__":
    main()
