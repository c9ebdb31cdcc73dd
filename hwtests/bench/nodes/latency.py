"""Receives stamped messages and keeps the one-way latency of each by its number."""

import time

from bench_node import report, stamp_of
from dora import Node


def main() -> None:
    node = Node()
    sizes: dict[str, dict[str, int]] = {}
    for event in node:
        if event["type"] != "INPUT":
            continue
        value = event["value"]
        now = time.monotonic_ns()
        seq = event["metadata"]["seq"]
        if seq >= 0:
            sizes.setdefault(str(len(value)), {})[str(seq)] = now - stamp_of(value)
    report({"sizes": sizes})


main()
