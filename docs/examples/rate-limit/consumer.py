"""Counts numbers, with some work on each, and measures how fast they come."""

import argparse
import time
from itertools import pairwise

from dora import Node


def main() -> None:
    """Receive until the sensor has ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=float, default=0.0)
    work = parser.parse_args().work
    numbers: list[int] = []
    times: list[float] = []
    of = 0
    for event in Node():
        if event["type"] == "INPUT":
            times.append(time.monotonic())
            numbers.append(event["value"][0].as_py())
            of = event["metadata"]["of"]
            time.sleep(work)
    nearest = min(later - earlier for earlier, later in pairwise(times))
    print(
        f"got {len(numbers)} of {of}, the last was {numbers[-1]}, "
        f"at least {nearest * 1e3:.0f} ms apart"
    )


if __name__ == "__main__":
    main()
