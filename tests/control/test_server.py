"""Calls and streams, seen by a client that knows only JSON."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.limits import Limits
from dorad.control.server import Call, ControlServer

from .serving import VERSION, Endless, event_number, raw, serving, status

pytestmark = pytest.mark.usefixtures("nothing_blocks")


async def test_a_call_is_answered_with_its_result(tmp_path: Path) -> None:
    async with serving(tmp_path, {"daemon.status": status}) as path, raw(path) as client:
        reply = await client.call(7, "daemon.status")
    assert reply["id"] == 7
    assert reply["result"]["version"] == VERSION
    assert reply["result"]["state"] == "test", "the handler knows what the client calls itself"
    assert "error" not in reply


async def test_params_may_be_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path, {"daemon.status": status}) as path, raw(path) as client:
        await client.send({"id": 1, "method": "daemon.status"})
        assert "result" in await client.receive()


async def test_calls_are_answered_as_they_end(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, raw(path) as client:
        await client.ask(1, "dataflow.wait", {"dataflow": "x"})
        await client.ask(2, "daemon.status")
        assert (await client.receive())["id"] == 2


async def test_an_error_of_a_handler_reaches_the_client(tmp_path: Path) -> None:
    async def start(call: Call, params: m.Start) -> m.Started:
        raise ControlError("refused", "no", "do otherwise", ["a", "b"])

    async with serving(tmp_path, {"dataflow.start": start}) as path, raw(path) as client:
        reply = await client.call(1, "dataflow.start", {"descriptor": {}, "path": "/x.yml"})
    assert reply == {
        "id": 1,
        "error": {
            "code": "refused",
            "message": "no",
            "hint": "do otherwise",
            "problems": ["a", "b"],
        },
    }


async def test_a_fault_of_a_handler_is_logged_and_the_connection_stays_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def top(call: Call, params: m.Nothing) -> m.Top:
        raise ZeroDivisionError("secret")

    handlers = {"top": top, "daemon.status": status}
    async with serving(tmp_path, handlers) as path, raw(path) as client:
        error = (await client.call(1, "top"))["error"]
        assert "result" in await client.call(2, "daemon.status")
    assert error["code"] == "internal"
    assert "secret" not in str(error)
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize("kind", [ControlError, OSError])
async def test_a_request_that_failed_keeps_nothing_that_it_used(tmp_path: Path, kind: type) -> None:
    class Memory:
        """Stands for memory that is mapped as long as an object refers to it."""

    used: list[weakref.ref[Memory]] = []

    async def top(call: Call, params: m.Nothing) -> m.Top:
        memory = Memory()
        used.append(weakref.ref(memory))
        try:
            raise MemoryError(str(memory))
        except MemoryError as why:
            error = kind("refused", "no")
            raise error from why  # a local of this frame, which the error refers to

    gc.disable()
    try:
        async with serving(tmp_path, {"top": top}) as path, raw(path) as client:
            assert "error" in await client.call(1, "top")
        assert [each() for each in used] == [None]
    finally:
        gc.enable()


async def test_an_answer_that_cannot_be_encoded_is_an_internal_error(tmp_path: Path) -> None:
    async def info(call: Call, params: m.ParamRef) -> m.Param:
        return m.Param(key="k", value=object())

    handlers = {"param.get": info, "daemon.status": status}
    async with serving(tmp_path, handlers) as path, raw(path) as client:
        reply = await client.call(1, "param.get", {"node": "n", "key": "k"})
        assert reply["error"]["code"] == "internal"
        assert "result" in await client.call(2, "daemon.status")


async def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def top(call: Call, params: m.Nothing) -> m.Top:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    limits = Limits(call=0.05)
    async with serving(tmp_path, {"top": top}, limits=limits) as path, raw(path) as client:
        reply = await client.call(1, "top")
    assert reply["error"]["code"] == "deadline"
    assert "`top`" in reply["error"]["message"]
    assert ended.is_set()


async def test_a_timeout_inside_a_handler_is_its_own_fault(tmp_path: Path) -> None:
    async def top(call: Call, params: m.Nothing) -> m.Top:
        raise TimeoutError

    async with serving(tmp_path, {"top": top}) as path, raw(path) as client:
        assert (await client.call(1, "top"))["error"]["code"] == "internal"


async def test_a_stream_is_events_and_an_end(tmp_path: Path) -> None:
    async def watch(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        for number in range(3):
            yield event_number(number)

    async with serving(tmp_path, {"watch": watch}) as path, raw(path) as client:
        await client.ask(5, "watch")
        replies = [await client.receive() for _ in range(4)]
    assert [reply.get("event", {}).get("at") for reply in replies] == [0, 1, 2, None]
    assert replies[-1] == {"id": 5, "end": True}


async def test_data_is_sent_in_binary_frames(tmp_path: Path) -> None:
    async def subscribe(call: Call, params: m.TopicSubscribe) -> AsyncIterator[Any]:
        header = m.TopicHeader(
            stream=call.id, topic="a/b", sequence=1, dropped=0, metadata={"k": [1]}
        )
        yield header, b"arrow"

    async with serving(tmp_path, {"topic.subscribe": subscribe}) as path, raw(path) as client:
        await client.ask(9, "topic.subscribe", {"topics": ["a/b"]})
        frame = await client.receive()
        assert await client.receive() == {"id": 9, "end": True}
    length = int.from_bytes(frame[:4], "little")
    assert (4 + length) % 8 == 0, "the Arrow data is aligned"
    assert frame[4 + length :] == b"arrow"
    assert b'"stream":9' in frame[4 : 4 + length]


async def test_an_error_ends_a_stream(tmp_path: Path) -> None:
    async def watch(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        yield event_number(0)
        raise ControlError("not-found", "gone")

    async with serving(tmp_path, {"watch": watch}) as path, raw(path) as client:
        await client.ask(5, "watch")
        assert "event" in await client.receive()
        assert (await client.receive())["error"]["code"] == "not-found"


async def test_a_cancelled_stream_ends_and_its_handler_cleans_up(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, raw(path) as client:
        await client.ask(1, "watch")
        await client.receive()
        await client.ask(2, "cancel", {"id": 1})
        replies = [await client.receive(), await client.receive()]
        assert {"id": 1, "end": True} in replies
        assert {"id": 2, "result": {}} in replies
        await endless.until_running(0)
        # The id is free again.
        await client.ask(1, "watch")
        assert "event" in await client.receive()


async def test_cancel_right_after_the_request_ends_it(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, raw(path) as client:
        await client.ask(1, "dataflow.wait", {"dataflow": "x"})
        await client.ask(2, "cancel", {"id": 1})
        replies = {reply["id"]: reply for reply in [await client.receive() for _ in range(2)]}
        assert replies[1]["error"]["code"] == "cancelled"
        await endless.until_running(0)


async def test_cancelling_an_ended_request_is_not_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, {}) as path, raw(path) as client:
        assert await client.call(2, "cancel", {"id": 1}) == {"id": 2, "result": {}}


async def test_cleaning_up_is_not_disturbed_by_the_end_of_the_connection(tmp_path: Path) -> None:
    going, cleaned = asyncio.Event(), asyncio.Event()

    async def watch(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        try:
            yield event_number(0)
            await asyncio.Event().wait()
        finally:
            await going.wait()
            cleaned.set()

    async with serving(tmp_path, {"watch": watch}) as path:
        async with raw(path) as client:
            await client.ask(1, "watch")
            await client.receive()
            await client.call(2, "cancel", {"id": 1})
        going.set()
        async with asyncio.timeout(5):
            await cleaned.wait()


async def test_an_id_in_use_is_refused_and_its_request_continues(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, raw(path) as client:
        await client.ask(1, "dataflow.wait", {"dataflow": "x"})
        await client.ask(1, "daemon.status")
        reply = await client.receive()
        assert reply["id"] is None
        assert "id 1 is in use" in reply["error"]["message"]
        assert endless.running == 1


async def test_too_many_calls_and_streams_are_refused(tmp_path: Path) -> None:
    endless = Endless()
    limits = Limits(calls=2, streams=1)
    async with serving(tmp_path, endless.handlers, limits=limits) as path, raw(path) as client:
        await client.ask(1, "dataflow.wait", {"dataflow": "x"})
        await client.ask(2, "dataflow.wait", {"dataflow": "x"})
        assert (await client.call(3, "daemon.status"))["error"]["code"] == "busy"
        await client.ask(4, "watch")
        assert "event" in await client.receive()
        assert (await client.call(5, "watch"))["error"]["code"] == "busy"
        await client.call(6, "cancel", {"id": 1})
        assert "result" in await client.call(7, "daemon.status")


async def test_a_method_without_a_handler_is_unsupported(tmp_path: Path) -> None:
    async with serving(tmp_path, {}) as path, raw(path) as client:
        assert (await client.call(1, "top"))["error"]["code"] == "unsupported"


def test_a_handler_for_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="no\\.such"):
        ControlServer({"no.such": status}, version=VERSION)


async def test_closing_the_server_ends_all_requests_and_removes_the_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    endless = Endless()
    server = ControlServer(endless.handlers, version=VERSION)
    path = tmp_path / "control.sock"
    await server.serve(path)
    async with raw(path) as client:
        await client.ask(1, "watch")
        await client.receive()
        assert server.connections == 1
        await server.close()
        await endless.until_running(0)
    assert not path.exists()
    assert server.connections == 0
    assert not caplog.records
