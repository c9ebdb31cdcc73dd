"""Receives a stream and measures its own processor time from the first counted message on."""

import time

from bench_node import cpu_seconds, report
from dora import Node


def main() -> None:
    node = Node()
    cpu_begin = wall_begin = cpu_end = wall_end = 0.0
    received = 0
    for event in node:
        if event["type"] != "INPUT" or event["metadata"]["seq"] < 0:
            continue
        cpu_end, wall_end = cpu_seconds(), time.monotonic()
        if not received:
            cpu_begin, wall_begin = cpu_end, wall_end
        received += 1
    report({"cpu_s": cpu_end - cpu_begin, "wall_s": wall_end - wall_begin, "messages": received})


main()
