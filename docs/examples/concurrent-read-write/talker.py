"""Sends numbers in one thread, and receives numbers in another."""

import threading
import time

import pyarrow as pa
from dora import Node

MESSAGES = 20
PAUSE_S = 0.01


def write(node: Node) -> None:
    """Send all numbers, with pauses."""
    for number in range(MESSAGES):
        node.send_output("number", pa.array([number]))
        time.sleep(PAUSE_S)


def read(node: Node) -> list[int]:
    """Receive until all numbers have come, or no more can come."""
    received: list[int] = []
    for event in node:
        if event["type"] == "INPUT":
            received.append(event["value"][0].as_py())
        if len(received) == MESSAGES:
            break
    return received


def main() -> None:
    """Do both at once."""
    node = Node()
    writer = threading.Thread(target=write, args=(node,))
    writer.start()
    received = read(node)
    writer.join()
    in_order = received == [*range(len(received))]
    print(f"sent {MESSAGES}, received {len(received)}, in order: {in_order}")


if __name__ == "__main__":
    main()
