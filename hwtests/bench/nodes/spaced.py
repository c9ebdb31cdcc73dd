"""Sends messages with a gap between them, for one-way latency on an otherwise idle system."""

import time

from bench_node import payload_class, report, steps
from dora import Node

WARM_UP_S = 1.5


def main() -> None:
    node = Node()
    make = payload_class(node)
    sent: dict[str, int] = {}
    first = True
    for size, count, gap in steps():
        payload = make(node, size)
        warm = max(5, int(WARM_UP_S / gap)) if first else 5
        first = False
        due = time.monotonic()
        for seq in range(-warm, count):
            due += gap
            time.sleep(max(0.0, due - time.monotonic()))
            payload.send("data", {"seq": seq})
        sent[str(size)] = count
    report({"sent": sent, "form": make.form})


main()
