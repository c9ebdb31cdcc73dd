"""Counts the messages of a burst between the first and the last, and answers its end marks."""

import time

import numpy as np
import pyarrow as pa
from bench_node import report
from dora import Node


def main() -> None:
    node = Node()
    answer = pa.array(np.zeros(8, np.uint8))
    tallies: dict[int, list[int]] = {}
    for event in node:
        if event["type"] != "INPUT":
            continue
        metadata = event["metadata"]
        size = len(event["value"])
        if metadata["seq"] < 0:
            if "end" in metadata:
                node.send_output("ack", answer, {"seq": metadata["end"]})
            continue
        now = time.monotonic_ns()
        tally = tallies.get(size)
        if tally is None:
            tallies[size] = [1, now, now]
        else:
            tally[0] += 1
            tally[2] = now
    report(
        {
            "sizes": {
                str(size): {"received": count, "ns": last - first}
                for size, (count, first, last) in tallies.items()
            }
        }
    )


main()
