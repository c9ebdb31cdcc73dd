"""The clock of another machine is known from greetings, but for what they took on their way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link.clocks import DRIFT, EXCHANGE_S, Exchange, PeerClock
from dorad.link.greeting import Greeting
from dorad.link.hello import decode

NOW = 1_700_000_000_000_000_000
TIMES = st.integers(0, 1_000_000_000)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(TIMES, TIMES, TIMES), min_size=1))
def test_the_true_offset_is_within_the_margin_however_slow_either_way_is(offset, exchanges):
    clock, now = PeerClock(), NOW
    for there, between, back in exchanges:
        sent, heard = now, now + there + offset
        now += there + between + back
        answer = Exchange(heard + between, now)
        clock.add(Exchange(sent, heard), answer, now / 1e9)
        known = clock.offset(now / 1e9)
        assert abs(known.ns - offset) <= known.margin_ns
    best = min(there + back for there, _, back in exchanges[-1:])
    assert known.margin_ns <= best // 2 + 1_000_000_000 * DRIFT + 1


def test_the_best_exchange_counts_until_it_is_old():
    clock = PeerClock()
    clock.add(Exchange(NOW, NOW + 5_000), Exchange(NOW + 5_000, NOW + 10_000), 0.0)
    clock.add(Exchange(NOW, NOW + 5_000_000), Exchange(NOW + 5_000_000, NOW + 10_000_000), 1.0)
    assert clock.offset(1.0).margin_ns < 150_000
    assert clock.offset(1000.0).margin_ns > 50_000_000 / 1e3


def test_a_clock_that_was_set_is_known_after_the_next_exchange():
    clock = PeerClock()
    for number, offset in enumerate((0, 0, 3_000_000_000)):
        heard = NOW + offset + 1_000
        clock.add(Exchange(NOW, heard), Exchange(heard, NOW + 2_000), number * EXCHANGE_S)
    known = clock.offset(2 * EXCHANGE_S)
    assert abs(known.ns - 3_000_000_000) <= known.margin_ns < 1_000_000


@given(*[st.integers(0, 1 << 62)] * 4)
def test_times_that_cannot_be_are_not_believed(sent, heard, answered, back):
    clock = PeerClock()
    clock.add(Exchange(sent, heard), Exchange(answered, back), 0.0)
    known = clock.offset(0.0)
    assert known is None or known.margin_ns > 0


class Ticking:
    """The clock of a machine, `ahead` ns ahead."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.now_s = 0.0

    def __call__(self) -> int:
        return NOW + self.ahead + round(self.now_s * 1e9)


@pytest.mark.parametrize("ahead", [0, 50_000_000, -50_000_000])
def test_greetings_tell_both_ends_how_their_clocks_differ_and_go_on_to_do_so(ahead):
    clocks = Ticking(0), Ticking(ahead)
    ends = [
        Greeting("flow", name, number, other, clock)
        for number, (name, other, clock) in enumerate(zip("ab", "ba", clocks, strict=True), 1)
    ]
    for end in ends:
        end.restart(0.0)
    sent = [0, 0]
    for step in itertools.count():
        now_s = step * 0.001
        for clock in clocks:
            clock.now_s = now_s
        number = step % 2
        if ends[number].due(now_s):
            ends[1 - number].hear(decode(ends[number].hello({}, now_s)), now_s)
            sent[number] += 1
        if now_s > 3 * EXCHANGE_S:
            break
    assert all(end.up for end in ends)
    for end, expected in zip(ends, (ahead, -ahead), strict=True):
        status = end.status("", now_s)
        assert abs(status.clock_us * 1000 - expected) <= status.clock_margin_us * 1000 + 1000
        assert status.clock_margin_us < 5_000
    assert all(4 <= count < 20 for count in sent)
