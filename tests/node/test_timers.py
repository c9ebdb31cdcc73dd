"""Timer inputs: which ticks are handed out, and what their words count."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.inputs import NEVER_NS, TimerInput
from dorad.shm import arrow, layout
from tests.shm.edge import Edge, edge

assert arrow.encode(pa.nulls(0))[1] == 0, "the native step is for nodes that have loaded Arrow"

S = 1_000_000_000
HOUR = 3600 * S


class Ticks:
    """A timer on the ring of an edge, with the words it keeps."""

    def __init__(self, e: Edge, interval: int, ago: int, deadline: int | None = None) -> None:
        """The dataflow began `ago` ns before now."""
        self._edge = e
        self.epoch = time.monotonic_ns() - ago
        self.interval = interval
        self.timer = TimerInput("tick", e.box, e.ring, interval, self.epoch, deadline)

    def word(self, at: int) -> int:
        value: int = self._edge.box.words[self._edge.ring.base + at]
        return value

    def words(self) -> dict[str, int]:
        return {
            "head": self.word(layout.RING_HEAD),
            "tail": self.word(layout.RING_TAIL),
            "received": self.word(layout.RING_RECEIVED),
            "last": self.word(layout.RING_LAST),
            "sum": self.word(layout.RING_LATENCY_SUM),
            "diff": self.word(layout.RING_LATENCY_DIFF),
            "max": self.word(layout.RING_LATE_MAX),
            "missed": self.word(layout.RING_MISSED),
        }


@given(
    interval=st.sampled_from([1, 1000, 20_000, S, HOUR]),
    ago=st.integers(0, 3 * HOUR),
    queue_size=st.sampled_from([1, 2, 5]),
    deadline=st.sampled_from([None, 1, 5 * S, 10 * HOUR]),
)
def test_each_tick_adds_up(interval: int, ago: int, queue_size: int, deadline: int | None) -> None:
    ago = min(ago, time.monotonic_ns())  # no dataflow began before the machine was booted
    with edge(queue_size) as e:
        ticks = Ticks(e, interval, ago, deadline)
        limit = deadline or interval
        late = 0
        for taken in range(4):
            before, due = ticks.words(), ticks.timer.next_ns()
            begin = time.monotonic_ns()
            event = ticks.timer.take()
            end = time.monotonic_ns()
            now = ticks.words()
            if event is None:
                assert begin < due
                assert now == before
                break
            skipped, rest = divmod(now["last"] - due, interval)
            assert rest == 0
            assert now["tail"] == before["tail"] + skipped + 1
            assert now["received"] == before["received"] + 1
            assert ticks.timer.next_ns() == now["last"] + interval
            # The ticks that were due by some moment of the call are in HEAD; the newest are queued.
            assert (begin - due) // interval < now["head"] - before["tail"]
            assert now["head"] - before["tail"] <= (end - due) // interval + 1
            assert skipped == max(0, now["head"] - before["tail"] - queue_size)
            this = now["sum"] - before["sum"]
            if taken:
                assert max(0, begin - now["last"]) <= this <= end - now["last"]
                assert now["max"] == max(before["max"], this)
                assert now["missed"] - before["missed"] == skipped + (this > limit)
            else:
                # The first tick was due before the process started: its delay does not count.
                assert all(now[name] == 0 for name in ("sum", "diff", "max", "missed"))
            if taken > 1:
                assert now["diff"] - before["diff"] == abs(this - late)
            late = this


def test_a_tick_is_dated_when_it_was_due_and_has_an_empty_value() -> None:
    with edge() as e:
        ticks = Ticks(e, HOUR, HOUR + 10 * S)
        event = ticks.timer.take()
        assert event is not None
        assert [*event] == ["kind", "type", "id", "value", "metadata"]
        assert (event["kind"], event["type"], event["id"]) == ("dora", "INPUT", "tick")
        assert event["value"].equals(pa.nulls(0))
        assert [*event["metadata"]] == ["timestamp"]
        away = datetime.now(UTC) - event["metadata"]["timestamp"]
        assert timedelta(seconds=9.9) < away < timedelta(seconds=60)
        assert ticks.timer.take() is None


def test_a_stopped_timer_ticks_no_more() -> None:
    with edge() as e:
        ticks = Ticks(e, 1, S)
        ticks.timer.stop()
        assert ticks.timer.take() is None
        assert ticks.words()["head"] == 0


@pytest.mark.parametrize("interval", [NEVER_NS, 1 << 63, 1 << 80])
def test_a_timer_of_centuries_ticks_once(interval: int) -> None:
    with edge() as e:
        ticks = Ticks(e, interval, S)
        assert ticks.timer.take() is not None
        assert ticks.timer.take() is None
        assert ticks.timer.next_ns() > time.monotonic_ns()


def test_counting_continues_after_a_restart_with_the_next_tick() -> None:
    with edge() as e:
        first = Ticks(e, HOUR, 2 * HOUR + S)
        assert first.timer.take() is not None
        before = first.words()
        second = TimerInput("tick", e.box, e.ring, HOUR, first.epoch)
        assert second.take() is None
        assert second.next_ns() == first.epoch + 3 * HOUR
        assert first.words() == before
