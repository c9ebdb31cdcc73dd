"""The server for Foxglove, with a dataflow made of lists and a client of the protocol."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from dorad.control.errors import ControlError
from dorad.logrecord import LogRecord
from dorad.view import feed
from dorad.view.foxglove import MAX_VIEWERS, FoxgloveServer
from tests.harness.waiting import until
from tests.view.viewer import viewing

POSE = pa.array([{"x": 1.5, "name": "arm"}])
IMAGE = pa.array(np.zeros(24, np.uint8))
START_US = 1_700_000_000_000_000


class Source:
    """A dataflow whose topics send the same array again and again while they are received."""

    def __init__(self, **topics):
        self.sent = {name.replace("__", "/"): array for name, array in topics.items()}
        self.open = []
        """Topics and rate of each open subscription."""
        self.metadata = {}
        self.refused = 0
        self.ended = asyncio.Event()
        self.ready = lambda: True
        self._number = 0

    async def topics(self):
        return list(self.sent)

    async def messages(self, topics, rate):
        if self.refused:
            self.refused -= 1
            raise ControlError("busy", "too many")
        subscription = (frozenset(topics), rate)
        self.open.append(subscription)
        try:
            while True:
                for topic in sorted(topics):
                    self._number += 1
                    yield self._message(topic)
                await asyncio.sleep(0.005)
                await until(self.ready)
        finally:
            self.open.remove(subscription)

    def _message(self, topic):
        # By the clock of the test, so that both subscriptions of a change number messages alike.
        moment = datetime.fromtimestamp((START_US + self._number) / 1e6, UTC)
        metadata = {"timestamp": moment.isoformat(), **self.metadata.get(topic, {})}
        header = m.TopicHeader(
            stream=0, topic=topic, sequence=self._number, dropped=0, metadata=metadata
        )
        return header, to_ipc(self.sent[topic])

    async def lines(self):
        self.open.append("lines")
        try:
            yield [LogRecord(timestamp=1.5, level="warn", node="arm", message="hot")]
            await asyncio.Event().wait()
        finally:
            self.open.remove("lines")

    async def changes(self):
        await self.ended.wait()
        return
        yield


@asynccontextmanager
async def serving(source, chosen=lambda _: True):
    server = FoxgloveServer(source, chosen, name="demo")
    address = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(0, address.set_result))
    await asyncio.wait({task, address}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield server, address.result()
    finally:
        source.ended.set()
        await task


@pytest.mark.parametrize("protocol", ["foxglove.sdk.v1", "foxglove.websocket.v1"])
async def test_a_viewer_gets_structs_pictures_and_log_lines(protocol):
    source = Source(arm__pose=POSE, cam__image=IMAGE)
    source.metadata["cam/image"] = {"width": 4, "height": 2, "encoding": "rgb8"}
    async with serving(source) as (_, address), viewing(address, protocol) as viewer:
        assert viewer.info["name"] == "dora view: demo"
        await viewer.read(lambda: viewer.topics == {"arm/pose", "cam/image", "dora/log"})
        await viewer.subscribe("arm/pose", "cam/image", "dora/log")
        await viewer.read(lambda: {name for name, *_ in viewer.messages} == viewer.topics)
        assert viewer.of("arm/pose")[0]["data"] == [{"x": 1.5, "name": "arm"}]
        image = viewer.of("cam/image")[0]
        assert (image["width"], image["height"], image["encoding"]) == (4, 2, "rgb8")
        line = viewer.of("dora/log")[0]
        assert (line["message"], line["name"], line["level"]) == ("hot", "arm", 3)
        stamps = [stamp for name, stamp, _ in viewer.messages if name == "arm/pose"]
        assert all(START_US * 1000 < stamp < START_US * 1000 + 10**12 for stamp in stamps)


async def test_nothing_is_received_while_nobody_looks():
    source = Source(arm__pose=POSE, cam__image=IMAGE)
    async with serving(source) as (_, address):
        assert source.open == []
        async with viewing(address) as viewer:
            await viewer.read(lambda: len(viewer.topics) == 3)
            assert all(rate == 1.0 for _, rate in source.open)  # only to learn their types
            await viewer.subscribe("arm/pose")
            await viewer.read(lambda: viewer.of("arm/pose"))
            await until(lambda: source.open == [(frozenset({"arm/pose"}), None)])
            await viewer.unsubscribe("arm/pose")
            await until(lambda: source.open == [])
            await viewer.subscribe("dora/log")
            await viewer.read(lambda: viewer.of("dora/log"))
            assert source.open == ["lines"]
        await until(lambda: source.open == [])


async def test_topics_that_were_not_chosen_are_neither_shown_nor_received():
    source = Source(arm__pose=POSE, cam__image=IMAGE)
    async with serving(source, lambda topic: topic == "arm/pose") as (_, address):
        async with viewing(address) as viewer:
            await viewer.read(lambda: "arm/pose" in viewer.topics)
            assert viewer.topics == {"arm/pose", "dora/log"}
            assert all("cam/image" not in topics for topics, _ in source.open)


@pytest.mark.parametrize("path", ["", "x" * 32, "é", "../", "x" * 5000])
async def test_who_does_not_know_the_token_is_refused(path):
    async with serving(Source(arm__pose=POSE)) as (server, address):
        wrong = address.removesuffix(server.token) + path
        with pytest.raises(InvalidStatus) as refused:
            await connect(wrong, subprotocols=["foxglove.sdk.v1"])
        assert refused.value.response.status_code == 401
        assert address.startswith("ws://127.0.0.1:")


async def test_a_client_of_another_protocol_is_refused():
    async with serving(Source(arm__pose=POSE)) as (_, address):
        for protocols in (None, ["other.v1"]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, subprotocols=protocols)
            assert refused.value.response.status_code == 400


async def test_one_viewer_too_many_is_refused():
    async with serving(Source(arm__pose=POSE)) as (server, address):
        viewers = [
            await connect(address, subprotocols=["foxglove.sdk.v1"]) for _ in range(MAX_VIEWERS)
        ]
        await until(lambda: len(server._viewers) == MAX_VIEWERS)
        with pytest.raises(InvalidStatus) as refused:
            await connect(address, subprotocols=["foxglove.sdk.v1"])
        assert refused.value.response.status_code == 503
        await viewers[0].close()
        await until(lambda: len(server._viewers) < MAX_VIEWERS)
        async with viewing(address) as viewer:
            assert viewer.info
        for each in viewers:
            await each.close()


@pytest.mark.long
async def test_a_slow_viewer_misses_messages_that_are_counted_and_the_others_miss_none():
    source = Source(cam__image=pa.array(np.zeros(1 << 20, np.uint8)))
    async with serving(source) as (server, address):
        async with viewing(address) as fast:
            (at_server,) = server._viewers
            source.ready = lambda: not at_server.backlog._items
            async with viewing(address) as slow:
                for viewer in (fast, slow):
                    await viewer.read(lambda viewer=viewer: "cam/image" in viewer.topics)
                    await viewer.subscribe("cam/image")
                await fast.read(lambda: server_drops(server) > 10)
                for viewer in server._viewers:
                    assert viewer.backlog._bytes <= feed.MAX_WAITING + (1 << 20)
                await slow.read(lambda: slow.statuses)
                assert "of cam/image" in slow.statuses[0]["message"]
            assert fast.statuses == []
    assert list(server.dropped) == ["cam/image"]
    assert server.dropped["cam/image"] > 10


def server_drops(server):
    return max(viewer.backlog.dropped["cam/image"] for viewer in server._viewers)


@pytest.mark.parametrize(
    "request_",
    [
        "no json",
        "[" * 100_000,
        "7",
        "{}",
        '{"op": 1}',
        '{"op": "subscribe"}',
        '{"op": "subscribe", "subscriptions": [7]}',
        '{"op": "subscribe", "subscriptions": [{"id": -1, "channelId": 1}]}',
        '{"op": "subscribe", "subscriptions": [{"id": 1, "channelId": "x"}]}',
        '{"op": "unsubscribe", "subscriptionIds": [[]]}',
        '{"op": "advertise", "channels": []}',
        b"\x01publish",
    ],
)
async def test_a_wrong_request_is_answered_and_the_viewer_stays(request_):
    async with serving(Source(arm__pose=POSE)) as (_, address), viewing(address) as viewer:
        await viewer.connection.send(request_)
        await viewer.read(lambda: viewer.statuses)
        assert viewer.statuses[0]["level"] in (1, 2)
        await viewer.read(lambda: "arm/pose" in viewer.topics)
        await viewer.subscribe("arm/pose")
        await viewer.read(lambda: viewer.of("arm/pose"))


async def test_a_subscription_to_a_channel_that_is_not_there_receives_nothing():
    source = Source(arm__pose=POSE)
    async with serving(source) as (_, address), viewing(address) as viewer:
        await viewer.read(lambda: "arm/pose" in viewer.topics)
        wanted = [{"id": 1, "channelId": 4000}]
        await viewer.send({"op": "subscribe", "subscriptions": wanted})
        await viewer.send({"op": "unknown"})
        await viewer.read(lambda: viewer.statuses)
        assert [each for each in source.open if each[1] is None] == []


async def test_a_second_topic_does_not_interrupt_the_first():
    source = Source(arm__pose=POSE, cam__image=IMAGE)
    async with serving(source) as (_, address), viewing(address) as viewer:
        await viewer.read(lambda: len(viewer.topics) == 3)
        await viewer.subscribe("arm/pose")
        await viewer.read(lambda: viewer.of("arm/pose"))
        await viewer.subscribe("cam/image")
        await viewer.read(lambda: viewer.of("cam/image"))
        both = frozenset({"arm/pose", "cam/image"})
        await until(lambda: source.open == [(both, None)])
        stamps = [stamp for name, stamp, _ in viewer.messages if name == "arm/pose"]
        assert stamps == sorted(set(stamps))


async def test_a_refused_subscription_is_tried_again(monkeypatch):
    monkeypatch.setattr(feed, "RETRY_S", 0.01)
    source = Source(arm__pose=POSE)
    source.refused = 3
    async with serving(source) as (_, address), viewing(address) as viewer:
        await viewer.read(lambda: "arm/pose" in viewer.topics)


async def test_a_topic_whose_type_changes_has_a_channel_for_each():
    source = Source(arm__pose=POSE)
    async with serving(source) as (_, address), viewing(address) as viewer:
        await viewer.read(lambda: "arm/pose" in viewer.topics)
        await viewer.subscribe("arm/pose")
        await viewer.read(lambda: viewer.of("arm/pose"))
        source.sent["arm/pose"] = pa.array(["text"])
        await viewer.read(lambda: len(viewer.channels) == 3)
        names = {each["schemaName"] for each in viewer.channels.values()}
        assert len(names) == 3
        assert json.dumps(sorted(names)).count("dora.") == 2


async def test_of_many_waiting_messages_the_newest_stay():
    backlog = feed.Backlog(100)
    for number in range(50):
        backlog.put("a/b", 30, number)
    assert backlog.dropped == {"a/b": 47}
    assert [await backlog.get() for _ in range(3)] == [47, 48, 49]
    backlog.put("a/b", 1000, "large")
    assert await backlog.get() == "large"
