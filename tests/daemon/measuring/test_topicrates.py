"""`topic hz` from counters: exact intervals where the polls are closer than the messages."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from dorad.control.messages import TopicRate, TopicRates
from dorad.daemon.broker.broker import Broker
from dorad.daemon.measuring.topicrates import TopicMeter, measure, watch
from dorad.dataflow.model import NodeOutput
from dorad.shm.counters import Counters
from tests.daemon.clients import RECEIVER, SENDER, pair, stage
from tests.daemon.flows import dataflow, node

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS


def _counters(sent: int, last_ns: int, payload: int = 0) -> Counters:
    values = dict.fromkeys(Counters._fields, 0)
    return Counters(**values | {"sent": sent, "last_ns": last_ns, "payload_bytes": payload})


def _measured(stamps: list[int], poll_ms: float, size: int = 0, window: float = 100) -> TopicRate:
    """The rate of messages stamped in ns after the start, polled every `poll_ms`."""
    meter = TopicMeter(window)
    end = stamps[-1] / MS + poll_ms
    at = 0.0
    while at <= end:
        sent = sum(stamp <= at * MS for stamp in stamps)
        last = START + stamps[sent - 1] if sent else 0
        meter.add(at / 1000, _counters(sent, last, sent * size))
        at += poll_ms
    return meter.rate("a/o", stamps[-1] / MS / 1000)


def test_intervals_are_exact_where_polls_are_closer() -> None:
    rate = _measured([0, 30 * MS, 70 * MS, 100 * MS, 140 * MS], poll_ms=2)
    assert (rate.topic, rate.count, rate.samples) == ("a/o", 4, 4)
    assert rate.mean_ms == pytest.approx(35)
    assert (rate.min_ms, rate.max_ms) == (30, 40)
    assert rate.std_ms == pytest.approx(5)
    assert rate.hz == pytest.approx(1000 / 35)


def test_several_outputs_are_measured_as_one_stream() -> None:
    together, meters = TopicMeter(100), [TopicMeter(100), TopicMeter(100)]
    for tick in range(200):
        arrivals = []
        for late, meter in enumerate(meters):  # each at 10 Hz, the second one 1 ms later
            sent = tick // 10 + 1
            stamp = START + (sent - 1) * 100 * MS + late * MS
            arrivals += filter(None, [meter.add(tick / 100, _counters(sent, stamp))])
        together.merge(tick / 100, arrivals)
    rate = together.rate("ALL", 1.99)
    assert rate.hz == pytest.approx(20, rel=0.05)
    assert (rate.min_ms, rate.max_ms) == (1, 99)
    assert rate.std_ms == pytest.approx(49, rel=0.02)
    assert rate.samples == 37


def test_one_output_is_its_own_stream() -> None:
    meter, together = TopicMeter(100), TopicMeter(100)
    for sent in range(1, 20):
        arrival = meter.add(sent / 10, _counters(sent, START + sent**2 * MS))
        together.merge(sent / 10, [arrival] if arrival else [])
    one, all_ = meter.rate("ALL", 1.9), together.rate("ALL", 1.9)
    assert (all_.max_ms, all_.min_ms) == (one.max_ms, 5)
    assert one.samples - all_.samples == 1  # its first message is the first of the stream


def test_large_messages_at_thirty_hertz() -> None:
    size = 8 << 20
    rate = _measured([k * 1_000_000_000 // 30 for k in range(91)], poll_ms=2, size=size)
    assert rate.hz == pytest.approx(30, rel=1e-3)
    assert rate.bandwidth == pytest.approx(30 * size, rel=1e-3)
    assert rate.std_ms == pytest.approx(0, abs=1e-3)


def test_messages_between_two_polls_count_with_their_mean() -> None:
    rate = _measured([k * MS // 10 for k in range(1001)], poll_ms=2)
    assert rate.hz == pytest.approx(10_000)
    assert rate.mean_ms == pytest.approx(0.1)
    assert rate.count == 1000
    assert rate.samples < 60


def test_nothing_sent_has_no_intervals() -> None:
    meter = TopicMeter(10)
    meter.add(0.0, _counters(0, 0))
    assert meter.rate("a/o", 1.0) == TopicRate(topic="a/o", hz=0.0, bandwidth=0.0, count=0)


def test_the_first_message_has_no_interval() -> None:
    meter = TopicMeter(10)
    meter.add(0.0, _counters(0, 0))
    meter.add(0.5, _counters(1, START))
    assert meter.rate("a/o", 1.0).mean_ms is None


def test_messages_sent_before_the_measurement_do_not_count() -> None:
    meter = TopicMeter(10)
    meter.add(0.0, _counters(1000, START))
    meter.add(0.1, _counters(1001, START + 100 * MS))
    assert meter.rate("a/o", 0.1).count == 1


def test_the_rate_of_a_silent_output_falls_to_zero() -> None:
    meter = TopicMeter(10)
    for k in range(11):
        meter.add(k / 10, _counters(k + 1, START + k * 100 * MS))
    assert meter.rate("a/o", 1.05).hz == pytest.approx(10)
    assert meter.rate("a/o", 6.0).hz == pytest.approx(10 / 6)
    assert meter.rate("a/o", 12.0).hz == 0


def test_old_intervals_leave_the_window() -> None:
    meter = TopicMeter(1)
    stamps = [k * 100 for k in range(20)] + [2000 + k * 10 for k in range(201)]
    for sent, stamp in enumerate(stamps, 1):
        meter.add(stamp / 1000, _counters(sent, START + stamp * MS))
    assert meter.rate("a/o", 4.0).hz == pytest.approx(100)


def test_a_new_ring_starts_a_new_count() -> None:
    meter = TopicMeter(10)
    for at, sent in ((0.0, 50), (0.1, 51), (0.2, 3), (0.3, 4)):
        meter.add(at, _counters(sent, START + int(at * 1000) * MS))
    rate = meter.rate("a/o", 0.3)
    assert rate.count == 1
    assert rate.mean_ms == pytest.approx(100)


def test_a_clock_that_steps_back_gives_no_negative_interval() -> None:
    meter = TopicMeter(10)
    meter.add(0.0, _counters(1, START))
    meter.add(0.1, _counters(2, START - 10**12))
    rate = meter.rate("a/o", 0.1)
    assert (rate.hz, rate.min_ms) == (0, 0)


class _Source:
    """A ring with counters from a function."""

    ring = "ring"

    def __init__(self, poll: Callable[[], Counters | None]) -> None:
        self.poll = poll
        self.choices = 0

    async def choose(self) -> bool:
        self.choices += 1
        return True


async def test_rates_are_reported_once_a_second() -> None:
    began = time.monotonic()

    def poll() -> Counters:
        sent = int((time.monotonic() - began) * 40) + 1
        return _counters(sent, START + sent * 25 * MS)

    sources = {"a/o": _Source(poll), "a/gone": _Source(lambda: None)}
    async with aclosing(measure(sources, 10)) as reports:
        first = await anext(reports)
        second = await anext(reports)
    assert [rate.topic for rate in first.rates] == ["a/o", "a/gone"]
    assert second.rates[0].mean_ms == pytest.approx(25)
    assert second.rates[0].count > first.rates[0].count
    assert second.rates[1].count == 0
    assert second.at > first.at
    assert sources["a/o"].choices == 2


async def test_a_poll_between_two_stores_is_repeated() -> None:
    polls = 0

    def poll() -> Counters:
        """A message every 16 polls; the poll before it finds its timestamp already."""
        nonlocal polls
        polls += 1
        sent = polls // 16 + 1
        return _counters(sent, START + (sent + (polls % 16 == 15)) * 50 * MS)

    async with aclosing(measure({"a/o": _Source(poll)}, 10)) as reports:
        rate = (await anext(reports)).rates[0]
    assert rate.samples == rate.count > 1
    assert (rate.min_ms, rate.max_ms) == (50, 50)


def test_another_ring_starts_another_count() -> None:
    meter = TopicMeter(10)
    for at, sent, ring in ((0.0, 1, "b"), (0.1, 2, "b"), (0.2, 1000, "c"), (0.3, 1001, "c")):
        meter.add(at, _counters(sent, START + int(at * 1000) * MS), ring)
    rate = meter.rate("a/o", 0.3)
    assert rate.count == 2
    assert rate.mean_ms == pytest.approx(100)


_LARGE = """
import time
from dora import Node
node = Node()
due = time.monotonic()
while True:
    array = node.empty(8 << 20)
    node.send_output("out", array)
    due = max(due + 1 / 30, time.monotonic())
    if node.next(timeout=max(0.0, due - time.monotonic()))["type"] == "STOP":
        break
"""


@asynccontextmanager
async def _running(broker: Broker, name: str, program: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**os.environ, "DORA_NODE_CONFIG": broker.node_config(name)},
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _receivers(*inputs: tuple[str, str]) -> Callable[[NodeOutput], Sequence[tuple[str, str]]]:
    return lambda _: inputs


async def _until(
    reports: AsyncIterator[TopicRates], fits: Callable[[TopicRate], bool]
) -> TopicRate:
    async with asyncio.timeout(40):
        while not fits(rate := (await anext(reports)).rates[0]):
            pass
    return rate


OUT = NodeOutput("a", "out")


async def test_eight_megabytes_at_thirty_hertz_without_a_receiver() -> None:
    async with stage(dataflow(node("a"))) as on, _running(on.broker, "a", _LARGE):
        async with aclosing(watch(on.broker, ".hz", [OUT], _receivers(), 2)) as reports:
            await _until(reports, lambda rate: rate.hz > 0)
            first, began = on.broker.stats.input_counters(".hz-0", "a/out"), time.monotonic()
            await anext(reports)
            rate = (await anext(reports)).rates[0]
            last, ended = on.broker.stats.input_counters(".hz-0", "a/out"), time.monotonic()
        counted = (last.sent - first.sent) / (ended - began)
        assert rate.hz == pytest.approx(counted, rel=0.2)
        assert rate.bandwidth == pytest.approx(rate.hz * (8 << 20), rel=0.01)
        assert rate.samples >= rate.count / 2
        with pytest.raises(KeyError):
            on.broker.stats.input_counters(".hz-0", "a/out")


async def test_the_ring_of_a_node_that_receives_it_is_read_and_no_observer_added() -> None:
    async with stage() as on, pair(on):
        receivers = _receivers(("d", "x"), ("b", "x"))
        async with aclosing(watch(on.broker, ".hz", [OUT], receivers, 2)) as reports:
            await _until(reports, lambda rate: rate.count > 10)
            with pytest.raises(KeyError):
                on.broker.stats.input_counters(".hz-0", "a/out")


async def test_when_the_receiver_ends_a_counting_observer_takes_over() -> None:
    async with stage() as on, _running(on.broker, "a", SENDER):
        async with aclosing(watch(on.broker, ".hz", [OUT], _receivers(("b", "x")), 1)) as reports:
            async with _running(on.broker, "b", RECEIVER):
                await _until(
                    reports, lambda rate: rate.count > 10 and on.broker.stats.vitals("b").connected
                )
            on.broker.detach("b")
            await _until(reports, lambda _: _counting(on.broker))
            await _until(reports, lambda rate: rate.count > 10)


async def test_it_ends_with_the_dataflow_and_leaves_nothing() -> None:
    async with stage(dataflow(node("a"))) as on:
        async with aclosing(watch(on.broker, ".hz", [OUT], _receivers(), 2)) as reports:
            assert (await anext(reports)).rates[0].count == 0
            await on.broker.close()
            assert [report async for report in reports] == []


def _counting(broker: Broker) -> bool:
    try:
        return broker.stats.input_counters(".hz-0", "a/out").sent > 100
    except KeyError:
        return False
