"""Sends twenty messages, one every 50 ms, starting at once."""

import time

import pyarrow as pa
from dora import Node

MESSAGES = 20
PERIOD_S = 0.05


def main() -> None:
    """Send all messages, then end."""
    node = Node()
    for number in range(MESSAGES):
        node.send_output("message", pa.array([number]), {"sent_ns": time.monotonic_ns()})
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
