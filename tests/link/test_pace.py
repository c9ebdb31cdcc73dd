"""How much of a channel may be on the way, by what its acknowledgements show of the line."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link.pace import (
    INTERVAL_S,
    MIN_BYTES,
    QUEUE_S,
    SAMPLES,
    START_BYTES,
    USE_S,
    LineMeter,
    Pace,
    Use,
)

CREDIT = 4 << 20


class Line:
    """Channels that share a line of some rate, and the time."""

    def __init__(self, rate: float, trip_s: float, channels: int = 1) -> None:
        self.now_s = 0.0
        self.rate = rate
        self.trip_s = trip_s
        self.paces = [Pace(lambda: self.now_s) for _ in range(channels)]
        for each in self.paces:
            each.open()
        self.sent = [0] * channels
        self.acknowledged = [0] * channels
        self.free_s = 0.0
        self.on_the_way: deque[tuple[float, int, int]] = deque()
        """When it is acknowledged, of which channel, and how much."""

    def send(self, channel: int, size: int) -> bool:
        """Send if it is allowed."""
        pace = self.paces[channel]
        before = self.sent[channel] - self.acknowledged[channel]
        if not pace.allows(before, size, CREDIT):
            return False
        self.sent[channel] += size
        pace.sent(self.sent[channel], before + size, size)
        self.free_s = max(self.free_s, self.now_s) + size / self.rate
        self.on_the_way.append((self.free_s + self.trip_s, channel, size))
        return True

    def run(self, seconds: float, size: int) -> None:
        """Let all channels send as much as they may."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            # In turns, as the link serves its channels.
            while sum(self.send(channel, size) for channel in range(len(self.paces))):
                pass
            self.now_s, channel, size_ = self.on_the_way.popleft()
            self.acknowledged[channel] += size_
            rest = self.sent[channel] - self.acknowledged[channel]
            self.paces[channel].acknowledged(self.acknowledged[channel], rest)

    @property
    def queue_s(self) -> float:
        """How long what is sent now waits for the line."""
        return max(0.0, self.free_s - self.now_s)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("trip_s", [0.05, 0.6])
def test_a_slow_line_is_used_and_has_a_short_queue(channels: int, trip_s: float) -> None:
    line = Line(200_000, trip_s, channels)
    line.run(20, 10_000)
    began, begin_s = sum(line.acknowledged), line.now_s
    line.run(20, 10_000)
    assert (sum(line.acknowledged) - began) / (line.now_s - begin_s) > 0.8 * line.rate
    assert line.queue_s < channels * 3 * MIN_BYTES / line.rate + 2 * QUEUE_S + trip_s


def test_a_fast_network_is_not_limited_after_a_moment() -> None:
    line = Line(1e9, INTERVAL_S)
    line.run(2, 64 << 10)
    assert line.paces[0].limit > CREDIT


def test_a_line_that_becomes_slow_is_noticed() -> None:
    line = Line(20e6, 0.05)
    line.run(5, 64 << 10)
    assert line.paces[0].limit > 1 << 20
    line.rate = 200_000
    line.run(60, 10_000)
    assert line.paces[0].limit < 200_000


def test_a_line_whose_round_trip_becomes_longer_is_used_again() -> None:
    line = Line(5e6, 0.05)
    line.run(5, 10_000)
    line.trip_s = 0.6
    line.run(60, 10_000)
    began, begin_s = sum(line.acknowledged), line.now_s
    line.run(20, 10_000)
    assert (sum(line.acknowledged) - began) / (line.now_s - begin_s) > 0.7 * line.rate


def test_a_channel_that_sends_little_keeps_the_limit_that_it_has_had() -> None:
    line = Line(20e6, 0.05)
    line.run(5, 64 << 10)
    limit = line.paces[0].limit
    while line.on_the_way:
        line.now_s, _, size = line.on_the_way.popleft()
        line.acknowledged[0] += size
        line.paces[0].acknowledged(line.acknowledged[0], line.sent[0] - line.acknowledged[0])
    for _ in range(20 * SAMPLES):
        line.now_s += 1.0
        assert line.send(0, 1000)
        line.now_s += 0.05
        line.on_the_way.clear()
        line.acknowledged[0] += 1000
        line.paces[0].acknowledged(line.acknowledged[0], 0)
    assert line.paces[0].limit >= limit / 2


def test_a_sender_that_could_send_more_does_not_lower_its_limit() -> None:
    now_s, total = 0.0, 0
    pace = Pace(lambda: now_s)
    limits = []
    for rate in (1_000_000, 3_000_000, *[2_000_000] * SAMPLES):
        size = round(rate * 0.1)
        total += size
        pace.sent(total, size, size)
        now_s += 0.1
        pace.acknowledged(total, 0)
        limits.append(pace.limit)
    assert limits[0] < limits[1]
    assert limits[2:] == limits[1:2] * SAMPLES


def test_something_is_always_allowed_if_nothing_is_on_the_way() -> None:
    pace = Pace(lambda: 0.0)
    assert pace.allows(0, 1 << 30, 1)
    assert pace.allows(START_BYTES - 1, 1 << 20, CREDIT)
    assert not pace.allows(START_BYTES, 1, CREDIT)
    assert pace.allows(1, 999, 1000)
    assert not pace.allows(1, 1000, 1000)


def test_a_new_connection_begins_anew() -> None:
    line = Line(1e9, 0.05)
    line.run(2, 64 << 10)
    line.paces[0].open()
    assert line.paces[0].limit == START_BYTES


STEPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0.01, 1)), max_size=12)


class Clock:
    """A time that the test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def limits(pace: Pace, clock: Clock, steps: list[tuple[int, float]]) -> list[int]:
    """Return the limit after each step: so much is sent, and all but half of it acknowledged."""
    found, sent, acknowledged = [], 0, 0
    for size, wait_s in steps:
        pace.allows(sent - acknowledged, size, CREDIT)
        sent += size
        pace.sent(sent, sent - acknowledged, size)
        clock.now_s += wait_s
        acknowledged = sent - size // 2
        pace.acknowledged(acknowledged, sent - acknowledged)
        found.append(pace.limit)
    return found


@given(STEPS, STEPS)
def test_of_an_earlier_connection_nothing_counts(
    before: list[tuple[int, float]], after: list[tuple[int, float]]
) -> None:
    used, new = Clock(), Clock()
    pace = Pace(used)
    limits(pace, used, before)
    pace.open()
    assert limits(pace, used, after) == pytest.approx(limits(Pace(new), new, after), abs=1)


def test_the_time_between_bursts_does_not_count() -> None:
    line = Line(20e6, INTERVAL_S)
    for _ in range(3 * SAMPLES):
        while line.send(0, 64 << 10):
            pass
        while line.on_the_way:
            line.now_s, _, size = line.on_the_way.popleft()
            line.acknowledged[0] += size
            line.paces[0].acknowledged(line.acknowledged[0], line.sent[0] - line.acknowledged[0])
        line.now_s += 10.0
    assert line.paces[0].limit > START_BYTES / 2


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 1)), max_size=50))
def test_the_limit_is_never_below_its_lowest_value(steps: list[tuple[int, float]]) -> None:
    now_s, sent, acknowledged = 0.0, 0, 0
    pace = Pace(lambda: now_s)
    pace.open()
    for size, wait_s in steps:
        now_s += wait_s
        sent += size
        pace.sent(sent, sent - acknowledged, size)
        now_s += wait_s
        acknowledged += (sent - acknowledged) // 2
        pace.acknowledged(acknowledged, sent - acknowledged)
        assert pace.limit >= MIN_BYTES


def test_a_meter_measures_the_rate_and_the_time_of_waiting_since_it_was_last_read() -> None:
    now_s = 5.0
    meter = LineMeter(lambda: now_s)
    meter.waits(True)
    now_s = 5.5
    meter.waits(True)
    meter.waits(False)
    now_s = 7.0
    assert meter.measure(1000) == Use(500, 25)
    meter.waits(True)
    now_s = 8.0
    assert meter.measure(1300) == Use(300, 100), "one that lasts counts until now"
    now_s = 10.0
    meter.waits(False)
    assert meter.measure(1300) == Use(0, 100)
    now_s = 11.0
    assert meter.measure(1300) == Use()


def test_a_meter_that_is_read_again_at_once_repeats_what_it_has_measured() -> None:
    now_s = 0.0
    meter = LineMeter(lambda: now_s)
    assert meter.measure(500) == Use()
    now_s = 1.0
    meter.waits(True)
    assert meter.measure(1000) == Use(1000)
    now_s += USE_S * 0.9
    assert meter.measure(9000) == Use(1000)
    now_s = 2.0
    assert meter.measure(9000) == Use(8000, 100)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3), st.booleans()), max_size=40))
def test_a_meter_never_measures_more_waiting_than_time(
    steps: list[tuple[bool, float, bool]],
) -> None:
    now_s = 0.0
    meter = LineMeter(lambda: now_s)
    for is_waiting, wait_s, is_read in steps:
        meter.waits(is_waiting)
        now_s += wait_s
        if is_read:
            assert 0 <= meter.measure(0).wait <= 100
