"""A source on a timer: passes one small message on per tick and measures its own processor time."""

import time

import numpy as np
import pyarrow as pa
from bench_node import cpu_seconds, report, step_seconds
from dora import Node

WARM_UP_S = 1.5


def main() -> None:
    node = Node()
    value = pa.array(np.zeros(8, np.uint8))
    start = time.monotonic() + WARM_UP_S
    end = start + step_seconds()
    cpu_begin = wall_begin = 0.0
    sent = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        now = time.monotonic()
        if now < start:
            node.send_output("data", value, {"seq": -1})
            continue
        if not wall_begin:
            cpu_begin, wall_begin = cpu_seconds(), now
        if now > end:
            break
        node.send_output("data", value, {"seq": sent})
        sent += 1
    report(
        {
            "cpu_s": cpu_seconds() - cpu_begin,
            "wall_s": time.monotonic() - wall_begin,
            "messages": sent,
        }
    )


main()
