"""Inputs with a maximum rate, compared with a plain model in simulated time."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.node import clock
from dorad.node.choosing import PacedInput
from dorad.node.clock import Clock
from dorad.node.inputs import NEVER_NS, RingInput
from dorad.shm.picking import PickingInlet
from tests.shm.edge import edge

INTERVAL_NS = 1000
RATE_HZ = 1e9 / INTERVAL_NS

steps = st.lists(
    st.tuples(st.integers(0, 900), st.sampled_from(["send", "look", "wait"])), max_size=60
)


@settings(deadline=None, max_examples=200)
@given(steps, st.integers(1, 5), st.booleans())
def test_pacing_never_exceeds_the_rate_and_delivers_the_newest_and_the_last(
    plan: list[tuple[int, str]], queue_size: int, keeps_all: bool
) -> None:
    now = 1
    sent = 0
    received: list[tuple[int, int]] = []
    with edge(queue_size) as e, patch.object(clock, "_monotonic_ns", lambda: now):
        inlet = PickingInlet(e.box, e.ring, e.segments, None)
        served = RingInput("x", inlet, Clock())
        paced = PacedInput(served, inlet, Clock(), RATE_HZ, keeps_all=keeps_all)

        def look() -> bool:
            event = paced.take()
            if event is None:
                return False
            received.append((now, event["value"][0].as_py()))
            if not keeps_all:
                assert received[-1][1] == sent, "something newer waited"
            return True

        for pause, what in plan:
            now += pause
            if what == "send":
                sent += 1
                e.push(bytes([sent]))
            elif what == "wait" and paced.next_ns() < NEVER_NS:
                # A waiting node gets nothing before that time, and the message then.
                due = paced.next_ns()
                if now < due:
                    assert not paced.ready()
                    assert paced.watched() is None
                    assert not look()
                    now = due
                assert paced.ready()
                assert look()
            else:
                assert paced.ready() == look()
            assert e.counters.sent == sum(e.counters[1:4])
        while paced.holds():
            now = max(now, paced.next_ns())
            assert look()
        assert e.counters[:4] == (sent, len(received), sent - len(received), 0)
    if sent:
        assert received[-1][1] == sent
    numbers = [number for _, number in received]
    assert numbers == sorted(set(numbers))
    times = [time for time, _ in received]
    assert all(later - earlier >= INTERVAL_NS for earlier, later in pairwise(times))
