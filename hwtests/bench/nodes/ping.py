"""Sends a payload, waits for the answer, measures the time between: a back-to-back round trip."""

import os
import time
from typing import Any

from bench_node import SILENCE_S, Payload, payload_class, report, step_seconds, steps
from dora import Node

WARM_UP_S = 1.5
"""Longer than any system takes to move an output from its start-up path to its fast path."""
WARM_UP_ANSWERS = 10
WARM_UP_LIMIT_S = 20.0
LATE_S = 0.5
METADATA = os.environ["BENCH_METADATA"] == "1"


class StreamEndedError(Exception):
    """The event stream ended before the measurement did."""


def exchange(node: Node, payload: Payload, seq: int) -> int | None:
    """Return the ns of one round trip; None if no answer came in time."""
    begin = time.monotonic_ns()
    payload.send("ping", {"seq": seq} if METADATA else None)
    while True:
        event = node.next(timeout=SILENCE_S)
        if event is None or event["type"] == "STOP":
            raise StreamEndedError
        if event["type"] == "ERROR":
            forget_late_answers(node)
            return None
        if event["type"] == "INPUT" and len(event["value"]):
            taken = time.monotonic_ns() - begin
            if not METADATA or event["metadata"]["seq"] == seq:
                return taken


def forget_late_answers(node: Node) -> None:
    """Discard late answers, which would be mistaken for answers to later messages."""
    while (event := node.next(timeout=LATE_S)) is not None and event["type"] == "INPUT":
        continue


def warm_up(node: Node, payload: Payload, seconds: float, seq: int) -> None:
    """Exchange messages until they arrive and ``seconds`` have passed."""
    begin = time.monotonic()
    answers = 0
    while answers < WARM_UP_ANSWERS or time.monotonic() - begin < seconds:
        seq -= 1
        answers += exchange(node, payload, seq) is not None
        if time.monotonic() - begin > max(seconds, WARM_UP_LIMIT_S):
            raise StreamEndedError


def measure(node: Node, payload: Payload, count: int) -> dict[str, Any]:
    deadline = time.monotonic() + step_seconds()
    times: list[int] = []
    lost = 0
    for seq in range(count):
        taken = exchange(node, payload, seq)
        if taken is None:
            lost += 1
        else:
            times.append(taken)
        if time.monotonic() > deadline:
            break
    return {"ns": times, "lost": lost}


def main() -> None:
    node = Node()
    make = payload_class(node)
    warm_up(node, make(node, 8), WARM_UP_S, -1_000_000)
    result: dict[str, Any] = {"form": make.form, "sizes": {}}
    for size, count, _gap in steps():
        payload = make(node, size)
        warm_up(node, payload, 0.1, -1_000)
        result["sizes"][str(size)] = measure(node, payload, count)
    report(result)


main()
