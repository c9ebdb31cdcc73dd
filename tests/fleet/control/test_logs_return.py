"""Followed log lines go on when a robot comes back, without a loss or a repetition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.logposition import OVERLAP_S, LogPosition
from tests.harness.waiting import until

from .serving import Fleet, leading


@pytest.fixture(autouse=True)
def promptly(monkeypatch):
    """Do not wait long for robots without a line, nor before they are asked again."""
    monkeypatch.setattr("dorafleet.coordinator.logorder.FIRST_S", 0.3)
    monkeypatch.setattr("dorafleet.coordinator.logstreams.AGAIN_S", 0.01)


def line(at: float, message: str, node: str = "talker") -> m.LogRecord:
    return m.LogRecord(timestamp=at, level="info", node=node, message=message)


class Robot:
    """What a robot's daemon has stored, and what was asked of it."""

    def __init__(self) -> None:
        self.lines: list[m.LogRecord] = []
        self.asked: list[m.LogRead] = []
        self.unknown = 0
        """So many times, it does not know the dataflow yet."""
        self.bell = Bell()

    async def read(self, _call: object, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        self.asked.append(params)
        if self.unknown:
            self.unknown -= 1
            raise ControlError("not-found", "no dataflow is named so")
        sent = 0
        while True:
            found = [x for x in self.lines[sent:] if x.timestamp >= (params.since or 0.0)]
            sent = len(self.lines)
            if found:
                yield m.LogLines(dataflow="x", lines=found)
            if not params.follow:
                return
            await self.bell.wait()

    def add(self, *lines: m.LogRecord) -> None:
        self.lines += lines
        self.bell.ring()


class Reader:
    """Follows the log in the background."""

    def __init__(self, fleet: Fleet) -> None:
        self._stream = fleet.stream("logs.read", m.LogRead(dataflow="talk", follow=True))
        self.found: list[m.LogRecord] = []
        self.skew: dict[str, float] = {}
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self._stream) as events:
            async for event in events:
                self.found += event.lines
                self.skew = event.skew

    @property
    def texts(self) -> list[str]:
        return [each.message for each in self.found]

    async def until(self, holds: Callable[[], object]) -> None:
        await until(lambda: self.task.done() or holds())
        if self.task.done():
            self.task.result()
        assert holds(), self.texts


@asynccontextmanager
async def following(fleet: Fleet) -> AsyncIterator[tuple[Reader, dict[str, Robot]]]:
    """Follow the log of a dataflow over two robots."""
    robots = {name: Robot() for name in ("arm1", "arm2")}
    for name, robot in robots.items():
        agent = await fleet.agent(name)
        await fleet.disconnect(agent)
        agent.handlers = {"logs.read": robot.read}
        await fleet.connect(agent)
    await fleet.run()
    reader = Reader(fleet)
    try:
        yield reader, robots
    finally:
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)


async def lose(fleet: Fleet, name: str) -> None:
    await fleet.disconnect(fleet.agents[name])


async def test_lines_that_a_robot_wrote_while_it_was_away_come_once_with_a_word_about_it(
    tmp_path,
):
    async with leading(tmp_path) as fleet, following(fleet) as (reader, robots):
        robots["arm2"].add(line(1000.0, "one"), line(1001.0, "two"))
        robots["arm1"].add(line(1000.5, "other"))
        await reader.until(lambda: {"one", "two", "other"} <= set(reader.texts))
        await lose(fleet, "arm2")
        await reader.until(lambda: any("no lines of robot `arm2`" in x for x in reader.texts))
        # The second has the same time as a line that is known.
        robots["arm2"].add(line(1001.0, "three"), line(1002.0, "four"))
        robots["arm1"].add(line(1003.0, "goes on"))
        await reader.until(lambda: "goes on" in reader.texts)
        await fleet.connect(fleet.agents["arm2"])
        await reader.until(lambda: "four" in reader.texts)
        (back,) = [x for x in reader.texts if "is back after" in x]
        assert "the lines that it has stored meanwhile follow" in back
        for text in ("one", "two", "three", "four"):
            assert reader.texts.count(text) == 1
        first, second = robots["arm2"].asked
        assert first.since is None
        assert second.since == pytest.approx(1001.0 - OVERLAP_S, abs=1.0)


async def test_lines_of_a_robot_that_comes_back_with_another_clock_are_read_once(tmp_path):
    async with leading(tmp_path) as fleet, following(fleet) as (reader, robots):
        now = time.time()
        robots["arm2"].add(line(now, "before"))
        await reader.until(lambda: "before" in reader.texts)
        assert reader.skew == {}
        await lose(fleet, "arm2")
        back = now - 93_600
        robots["arm2"].add(line(back, "first"))
        fleet.agents["arm2"].clock = -93_600.0
        await fleet.connect(fleet.agents["arm2"])
        await reader.until(lambda: "first" in reader.texts)
        assert reader.skew == {"arm2": pytest.approx(-93_600, abs=60)}
        await lose(fleet, "arm2")
        robots["arm2"].add(line(back + 1, "second"))
        await fleet.connect(fleet.agents["arm2"])
        await reader.until(lambda: "second" in reader.texts)
        shown = [text for text in reader.texts if "robot" not in text]
        assert shown == ["before", "first", "second"]
        assert robots["arm2"].asked[-1].since == pytest.approx(back - OVERLAP_S, abs=60)


async def test_a_robot_that_is_away_at_first_is_read_when_it_comes(tmp_path):
    async with leading(tmp_path) as fleet, following(fleet) as (reader, robots):
        robots["arm1"].add(line(1.0, "here"))
        await reader.until(lambda: "here" in reader.texts)
        await lose(fleet, "arm2")
        late = Reader(fleet)
        await late.until(lambda: any("no lines of robot `arm2`" in x for x in late.texts))
        robots["arm2"].add(line(2.0, "came"))
        await fleet.connect(fleet.agents["arm2"])
        await late.until(lambda: "came" in late.texts)
        late.task.cancel()
        await asyncio.gather(late.task, return_exceptions=True)


async def test_a_robot_that_has_booted_is_asked_again_until_it_knows_the_dataflow(tmp_path):
    async with leading(tmp_path) as fleet, following(fleet) as (reader, robots):
        robots["arm2"].add(line(1.0, "before"))
        await reader.until(lambda: "before" in reader.texts)
        await lose(fleet, "arm2")
        robots["arm2"].unknown = 3
        robots["arm2"].add(line(2.0, "after"))
        await fleet.connect(fleet.agents["arm2"])
        await reader.until(lambda: "after" in reader.texts)
        assert sum("no lines of robot" in x for x in reader.texts) == 1


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from("ab")), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_no_line_is_lost_or_repeated_over_any_number_of_losses(
    times: list[tuple[float, str]], losses: list[int]
) -> None:
    """Lines are stored in the order of their arrival, each at most the overlap late."""
    newest, lines = 0.0, []
    for number, (at, node) in enumerate(times):
        at = max(at, newest - OVERLAP_S)
        newest = max(newest, at)
        lines.append(line(at, f"{number % 3}", node))
    position, found, begin = LogPosition(), [], 0
    for end in [*sorted(min(each, len(lines)) for each in losses), len(lines)]:
        since = position.resume()
        stored = [x for x in lines[:end] if x.timestamp >= (since or 0.0)]
        found += position.take(stored)
        begin = end
    assert begin == len(lines)
    assert sorted(found, key=repr) == sorted(lines, key=repr)
