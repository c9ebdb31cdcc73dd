"""The places for streams on a robot: so many for a name, and the last ones for admins."""

import asyncio
import os
from contextlib import aclosing

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.control.session import Call
from dorafleet.coordinator.robotstreams import STREAMS, SUBSCRIPTIONS
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import leading
from tests.harness.waiting import DEADLINE_S, until


class Daemon:
    """The streams that the daemon of a robot has open."""

    def __init__(self, agent, *methods):
        self.open = 0
        for method in methods:
            agent.handlers[method] = self.stream

    async def stream(self, call, params):
        self.open += 1
        try:
            if call.method == "topic.subscribe":
                header = m.TopicHeader(
                    stream=call.id, topic="talker/out", sequence=1, dropped=0, metadata={}
                )
                yield header, b"data"
            elif call.method == "logs.read":
                yield m.LogLines(dataflow="talk", lines=[line()])
            else:
                yield m.Event(at=1.0, dataflow=params.dataflow or "", what="node-started")
            await asyncio.Event().wait()
        finally:
            self.open -= 1


def line():
    return m.LogRecord(timestamp=1.0, level="info", node="talker", message="hello")


def peer(name, role="viewer"):
    return Peer(0, os.getuid(), os.getgid(), name=name, role=role)


class Streams:
    """Streams of clients, each read until its first event."""

    def __init__(self, fleet):
        self._table = fleet.control.table
        self._tasks = []

    async def open(self, who, method, params):
        """Open a stream and return its first event. Raises ControlError."""
        first = asyncio.get_running_loop().create_future()

        async def read():
            try:
                stream = self._table[method](Call(len(self._tasks), method, who, "test 1"), params)
                async with aclosing(stream) as events:
                    async for event in events:
                        if not first.done():
                            first.set_result(event)
            except ControlError as error:
                first.set_exception(error)

        self._tasks.append(asyncio.create_task(read()))
        return await asyncio.wait_for(first, DEADLINE_S)

    async def close(self, count=None):
        """End the streams that were opened first, all of them by default."""
        tasks, self._tasks = self._tasks[:count], self._tasks[:count] and self._tasks[count:]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def site(tmp_path):
    async with leading(tmp_path) as fleet:
        daemons = []
        for robot in ("arm1", "arm2"):
            agent = fleet.agents[robot] = FakeAgent(robot, fleet.port)
            daemons.append(Daemon(agent, "topic.subscribe", "logs.read", "watch"))
            await fleet.connect(agent)
        await fleet.run()
        streams = Streams(fleet)
        yield streams, daemons[0]
        await streams.close()


SUBSCRIBE = ("topic.subscribe", m.TopicSubscribe(dataflow="talk", topics=["talker/out"]))
LOGS = ("logs.read", m.LogRead(dataflow="talk", nodes=["talker"], follow=True))


@pytest.mark.parametrize(("request_", "quota"), [(SUBSCRIBE, SUBSCRIPTIONS), (LOGS, STREAMS)])
async def test_a_viewer_leaves_streams_of_a_robot_to_others_and_all_viewers_to_admins(
    site, request_, quota
):
    streams, daemon = site
    for _ in range(quota.each):
        await streams.open(peer("greedy"), *request_)
    with pytest.raises(ControlError, match=r"`greedy` has . .* on robot `arm1`") as caught:
        await streams.open(peer("greedy"), *request_)
    assert caught.value.code == "busy"
    for number in range(1, quota.of_all // quota.each):
        for _ in range(quota.each):
            await streams.open(peer(f"viewer{number}"), *request_)
    with pytest.raises(ControlError, match="the rest is for admins"):
        await streams.open(peer("ivan", "operator"), *request_)
    await streams.open(peer("ann", "admin"), *request_)
    assert daemon.open == quota.of_all + 1
    await streams.close(1)
    await until(lambda: daemon.open == quota.of_all)
    await streams.open(peer("ivan", "operator"), *request_)


async def test_events_of_a_robot_that_are_left_out_because_of_a_quota_are_said(site):
    streams, _ = site
    watch = ("watch", m.Watch(dataflow="talk"))
    for _ in range(STREAMS.each):
        assert (await streams.open(peer("vic"), *watch)).what == "node-started"
    event = await streams.open(peer("vic"), *watch)
    assert event.what == "left-out"
    assert "`vic` has 8 streams on robot `arm" in event.text
