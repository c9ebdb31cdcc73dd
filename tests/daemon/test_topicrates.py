"""`topic hz` from counters: exact intervals where the looks are closer than the messages."""

from __future__ import annotations

import time
from contextlib import aclosing

import pytest

from dorad.control.messages import TopicRate
from dorad.daemon.topicrates import TopicMeter, measure
from dorad.shm.ring import Counters

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS


def _counters(sent: int, last_ns: int, payload: int = 0) -> Counters:
    values = dict.fromkeys(Counters._fields, 0)
    return Counters(**values | {"sent": sent, "last_ns": last_ns, "payload_bytes": payload})


def _measured(stamps: list[int], look_ms: float, size: int = 0, window: float = 100) -> TopicRate:
    """The rate of messages stamped in ns after the start, looked at every `look_ms`."""
    meter = TopicMeter(window)
    end = stamps[-1] / MS + look_ms
    at = 0.0
    while at <= end:
        sent = sum(stamp <= at * MS for stamp in stamps)
        last = START + stamps[sent - 1] if sent else 0
        meter.look(at / 1000, _counters(sent, last, sent * size))
        at += look_ms
    return meter.rate("a/o", stamps[-1] / MS / 1000)


def test_intervals_are_exact_where_looks_are_closer() -> None:
    rate = _measured([0, 30 * MS, 70 * MS, 100 * MS, 140 * MS], look_ms=2)
    assert (rate.topic, rate.count, rate.samples) == ("a/o", 4, 4)
    assert rate.mean_ms == pytest.approx(35)
    assert (rate.min_ms, rate.max_ms) == (30, 40)
    assert rate.std_ms == pytest.approx(5)
    assert rate.hz == pytest.approx(1000 / 35)


def test_large_messages_at_thirty_hertz() -> None:
    size = 8 << 20
    rate = _measured([k * 1_000_000_000 // 30 for k in range(91)], look_ms=2, size=size)
    assert rate.hz == pytest.approx(30, rel=1e-3)
    assert rate.bandwidth == pytest.approx(30 * size, rel=1e-3)
    assert rate.std_ms == pytest.approx(0, abs=1e-3)


def test_messages_between_two_looks_count_with_their_mean() -> None:
    rate = _measured([k * MS // 10 for k in range(1001)], look_ms=2)
    assert rate.hz == pytest.approx(10_000)
    assert rate.mean_ms == pytest.approx(0.1)
    assert rate.count == 1000
    assert rate.samples < 60


def test_nothing_sent_has_no_intervals() -> None:
    meter = TopicMeter(10)
    meter.look(0.0, _counters(0, 0))
    assert meter.rate("a/o", 1.0) == TopicRate(topic="a/o", hz=0.0, bandwidth=0.0, count=0)


def test_the_first_message_has_no_interval() -> None:
    meter = TopicMeter(10)
    meter.look(0.0, _counters(0, 0))
    meter.look(0.5, _counters(1, START))
    assert meter.rate("a/o", 1.0).mean_ms is None


def test_what_was_sent_before_anybody_measured_does_not_count() -> None:
    meter = TopicMeter(10)
    meter.look(0.0, _counters(1000, START))
    meter.look(0.1, _counters(1001, START + 100 * MS))
    assert meter.rate("a/o", 0.1).count == 1


def test_an_output_that_falls_silent_slows_down_and_ends_at_zero() -> None:
    meter = TopicMeter(10)
    for k in range(11):
        meter.look(k / 10, _counters(k + 1, START + k * 100 * MS))
    assert meter.rate("a/o", 1.05).hz == pytest.approx(10)
    assert meter.rate("a/o", 6.0).hz == pytest.approx(10 / 6)
    assert meter.rate("a/o", 12.0).hz == 0


def test_old_intervals_leave_the_window() -> None:
    meter = TopicMeter(1)
    stamps = [k * 100 for k in range(20)] + [2000 + k * 10 for k in range(201)]
    for sent, stamp in enumerate(stamps, 1):
        meter.look(stamp / 1000, _counters(sent, START + stamp * MS))
    assert meter.rate("a/o", 4.0).hz == pytest.approx(100)


def test_a_ring_made_anew_starts_afresh() -> None:
    meter = TopicMeter(10)
    for at, sent in ((0.0, 50), (0.1, 51), (0.2, 3), (0.3, 4)):
        meter.look(at, _counters(sent, START + int(at * 1000) * MS))
    rate = meter.rate("a/o", 0.3)
    assert rate.count == 1
    assert rate.mean_ms == pytest.approx(100)


def test_a_clock_that_steps_back_gives_no_negative_interval() -> None:
    meter = TopicMeter(10)
    meter.look(0.0, _counters(1, START))
    meter.look(0.1, _counters(2, START - 10**12))
    rate = meter.rate("a/o", 0.1)
    assert (rate.hz, rate.min_ms) == (0, 0)


async def test_rates_are_reported_once_a_second() -> None:
    began = time.monotonic()

    def look() -> Counters:
        sent = int((time.monotonic() - began) * 40) + 1
        return _counters(sent, START + sent * 25 * MS)

    async with aclosing(measure({"a/o": look, "a/gone": lambda: None}, 10)) as reports:
        first = await anext(reports)
        second = await anext(reports)
    assert [rate.topic for rate in first.rates] == ["a/o", "a/gone"]
    assert second.rates[0].mean_ms == pytest.approx(25)
    assert second.rates[0].count > first.rates[0].count
    assert second.rates[1].count == 0
    assert second.at > first.at


async def test_a_look_between_two_stores_is_taken_again() -> None:
    looks = 0

    def look() -> Counters:
        """A message every 16 looks; the look before it finds its timestamp already."""
        nonlocal looks
        looks += 1
        sent = looks // 16 + 1
        return _counters(sent, START + (sent + (looks % 16 == 15)) * 50 * MS)

    async with aclosing(measure({"a/o": look}, 10)) as reports:
        rate = (await anext(reports)).rates[0]
    assert rate.samples == rate.count > 1
    assert (rate.min_ms, rate.max_ms) == (50, 50)
