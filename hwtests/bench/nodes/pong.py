"""Answers every message: with 8 bytes, or with what it got (``BENCH_ANSWER=echo``)."""

import os

import numpy as np
import pyarrow as pa
from bench_node import report
from dora import Node


def main() -> None:
    echo = os.environ["BENCH_ANSWER"] == "echo"
    numbered = os.environ["BENCH_METADATA"] == "1"
    short = pa.array(np.zeros(8, np.uint8))
    node = Node()
    answered = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        value = event["value"]
        if len(value):
            metadata = {"seq": event["metadata"]["seq"]} if numbered else None
            node.send_output("pong", value if echo else short, metadata)
            answered += 1
    report({"answered": answered})


main()
