"""The streams of several robots as one."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.streams import merged


@asynccontextmanager
async def stream(*events, end=None):
    async def arrivals():
        for event in events:
            yield event
        if end is not None:
            raise end

    yield arrivals()


async def read(streams, **options):
    async with asyncio.timeout(60), merged(streams, **options) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    "end", [OSError("no disk"), ValueError("no line"), asyncio.CancelledError()]
)
async def test_an_exception_that_is_no_answer_of_a_robot_ends_the_reader_too(end):
    with pytest.raises(type(end)):
        await read({"a": stream(1), "b": stream(2, end=end)})


async def test_a_robot_that_refuses_ends_alone_and_the_others_go_on():
    refusal = ControlError("not-found", "no such dataflow")
    streams = {"a": stream(1, 2), "b": stream(end=refusal)}
    events = await read(streams, instead=lambda robot, reason: (robot, reason))
    assert {event for event in events if event[0] == "a"} == {("a", 1), ("a", 2)}
    assert len(events) == 3
    with pytest.raises(ControlError, match="no such dataflow"):
        await read({"a": stream(end=refusal), "b": stream(end=refusal)})


async def test_a_reader_that_ends_early_ends_all_streams():
    ended = []

    @asynccontextmanager
    async def endless(robot):
        async def arrivals():
            while True:
                yield robot
                await asyncio.sleep(0)

        try:
            yield arrivals()
        finally:
            ended.append(robot)

    async with asyncio.timeout(60):
        async with merged({"a": endless("a"), "b": endless("b")}) as events:
            await anext(events)
        assert sorted(ended) == ["a", "b"]
