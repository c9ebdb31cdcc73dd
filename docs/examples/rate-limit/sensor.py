"""Sends numbers, 200 a second unless a consumer makes it wait."""

import argparse
import time

import pyarrow as pa
from dora import Node

PERIOD_S = 0.005


def main() -> None:
    """Send `--count` numbers, and print how long that took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    count = parser.parse_args().count
    node = Node()
    began = time.monotonic()
    for number in range(count):
        node.send_output("number", pa.array([number]), {"of": count})
        time.sleep(PERIOD_S)
    print(f"sent {count} in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
