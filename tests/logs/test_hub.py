"""Following the lines of a running dataflow."""

import asyncio

from dorad.logrecord import LogRecord
from dorad.logs import hub as hubs
from dorad.logs.hub import Follower, LogHub
from dorad.logs.selection import Selection


def record(text: str, node: str = "cam") -> LogRecord:
    return LogRecord(1.0, "stdout", node, text)


async def read(follower: Follower) -> list[tuple[list[str], int]]:
    async with asyncio.timeout(10):
        return [([r.message for r in lines.records], lines.left_out) async for lines in follower]


async def test_a_follower_gets_all_records_until_the_end() -> None:
    hub = LogHub()
    hub.publish([record("before")])
    follower = hub.follow(Selection())
    hub.publish([record("a"), record("b")])
    hub.publish([record("c")])
    hub.end()
    assert await read(follower) == [(["a", "b"], 0), (["c"], 0)]


async def test_a_follower_waits_for_the_next_line() -> None:
    hub = LogHub()
    follower = hub.follow(Selection(nodes=frozenset(["cam"])))
    reading = asyncio.create_task(read(follower))
    await asyncio.sleep(0)
    hub.publish([record("other", "imu")])
    hub.publish([record("a")])
    await asyncio.sleep(0)
    hub.end()
    assert await reading == [(["a"], 0)]


async def test_a_follower_after_the_end_gets_nothing() -> None:
    hub = LogHub()
    hub.end()
    assert await read(hub.follow(Selection())) == []


async def test_a_slow_follower_misses_lines_and_learns_where_and_how_many() -> None:
    hub = LogHub()
    follower = hub.follow(Selection())
    lines = [record(str(number)) for number in range(hubs.QUEUE_LINES + 5)]
    hub.publish(lines)
    hub.publish([record("lost too")])
    first = await anext(follower)
    assert len(first.records) == hubs.QUEUE_LINES
    hub.publish([record("after")])
    hub.end()
    assert await read(follower) == [(["after"], 6)]


async def test_a_slow_follower_keeps_few_long_lines_and_later_gets_others() -> None:
    hub = LogHub()
    follower = hub.follow(Selection())
    long = "x" * (hubs.QUEUE_CHARACTERS // 4)
    hub.publish([record(long)] * 3)
    hub.publish([LogRecord(1.0, "info", "cam", "", fields={"all": long})] * 3)
    batches = [await anext(follower), await anext(follower)]
    assert [len(batch.records) for batch in batches] == [3, 1]
    hub.publish([record("after")])
    hub.end()
    assert await read(follower) == [(["after"], 2)]


async def test_lines_that_were_lost_at_the_very_end_are_counted() -> None:
    hub = LogHub()
    follower = hub.follow(Selection())
    hub.publish([record("x")] * hubs.QUEUE_LINES)
    hub.publish([record("lost")])
    hub.end()
    assert (await read(follower))[-1] == ([], 1)


async def test_a_closed_follower_keeps_no_lines() -> None:
    hub = LogHub()
    follower = hub.follow(Selection())
    follower.close()
    hub.publish([record("a")])
    assert follower._waiting == 0
