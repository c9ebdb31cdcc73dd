"""Sends as fast as it can, then asks every receiver whether it has seen the end of the burst."""

import time

from bench_node import Payload, numbers, payload_class, report, step_seconds, steps
from dora import Node

WARM_UP_S = 1.5
ASK_EVERY_S = 0.5
ASK_LIMIT_S = 15.0


def settle(node: Node, payload: Payload, step: int, receivers: int) -> bool:
    """Send end marks until every receiver has answered one; return False after a timeout."""
    seen: set[str] = set()
    give_up = time.monotonic() + ASK_LIMIT_S
    while len(seen) < receivers and time.monotonic() < give_up:
        payload.send("data", {"seq": -1, "end": step})
        ask_again = time.monotonic() + ASK_EVERY_S
        while len(seen) < receivers and (left := ask_again - time.monotonic()) > 0:
            event = node.next(timeout=left)
            if event is None or event["type"] == "STOP":
                return False
            if event["type"] == "INPUT" and event["metadata"]["seq"] == step:
                seen.add(event["id"])
    return len(seen) == receivers


def burst(payload: Payload, count: int) -> tuple[int, int]:
    """Send ``count`` messages, or as many as time allows; return their number and the ns."""
    begin = time.monotonic_ns()
    stop = begin + int(step_seconds() * 1e9)
    for seq in range(count):
        payload.send("data", {"seq": seq})
        if time.monotonic_ns() > stop:
            return seq + 1, time.monotonic_ns() - begin
    return count, time.monotonic_ns() - begin


def main() -> None:
    node = Node()
    make = payload_class(node)
    receivers = int(numbers("BENCH_RECEIVERS")[0])
    small = make(node, 8)
    warm_until = time.monotonic() + WARM_UP_S
    while time.monotonic() < warm_until:
        small.send("data", {"seq": -1})
        time.sleep(0.005)
    sizes = {}
    for step, (size, count, _gap) in enumerate(steps()):
        payload = make(node, size)
        ready = settle(node, payload, 2 * step, receivers)
        sent, taken = burst(payload, count)
        settled = settle(node, payload, 2 * step + 1, receivers)
        sizes[str(size)] = {"sent": sent, "ns": taken, "settled": ready and settled}
    report({"sizes": sizes, "form": make.form})


main()
