"""The client for asyncio."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

from dorad.control import connecting, pending
from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from dorad.control.asyncclient import AsyncClient, ControlError, NoDaemonError
from dorad.control.server import Call
from dorad.control.target import NEAR
from tests.harness.waiting import until

from .serving import VERSION, Endless, event_number, serving, status

CANCELLED = 100
"""Attempts to connect that are cancelled, each at another moment."""

pytestmark = pytest.mark.usefixtures("nothing_blocks")


async def test_a_call_returns_its_result(tmp_path: Path) -> None:
    async with serving(tmp_path, {"daemon.status": status}) as path:
        async with AsyncClient(path, name="me") as client:
            assert (client.daemon, client.server.path) == (f"dorad {VERSION}", path)
            found = await client.status()
    assert (found.version, found.state) == (VERSION, "me")


async def test_start_loads_the_file_without_blocking(tmp_path: Path) -> None:
    async def start(call: Call, params: m.Start) -> m.Started:
        return m.Started(uuid=params.path, name=params.name)

    file = tmp_path / "flow.yml"
    file.write_text("nodes:\n- id: a\n  path: a.py\n")
    async with serving(tmp_path, {"dataflow.start": start}) as path, AsyncClient(path) as client:
        assert await client.start(file, name="n") == m.Started(uuid=str(file), name="n")


async def test_many_tasks_share_a_client(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, AsyncClient(path) as client:
        waiting = asyncio.create_task(client.wait("x"))
        async with client.watch() as events:
            found = await asyncio.gather(anext(events), *(client.status() for _ in range(20)))
            assert found[0] == event_number(0)
            assert endless.running == 2
        waiting.cancel()
        await asyncio.wait([waiting])
        await endless.until_running(0)
        assert (await client.status()).version == VERSION


async def test_a_task_that_is_cancelled_while_it_reads_for_others(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, AsyncClient(path) as client:
        async with client.watch() as events:
            await anext(events)
            reading = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            asking = asyncio.create_task(client.status())
            await asyncio.sleep(0)
            reading.cancel()
            assert (await asking).version == VERSION


async def test_echo_gives_arrays(tmp_path: Path) -> None:
    async def subscribe(call: Call, params: m.TopicSubscribe) -> AsyncIterator[Any]:
        header = m.TopicHeader(stream=call.id, topic="a/b", sequence=1, dropped=0, metadata={})
        yield header, to_ipc(pa.array(["x"]))

    async with serving(tmp_path, {"topic.subscribe": subscribe}) as path:
        async with AsyncClient(path) as client:
            found = [(header.topic, data) async for header, data in client.echo()]
    assert found == [("a/b", pa.array(["x"]))]


async def test_a_stream_that_is_not_read_holds_up_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_WAITING", 10)
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, AsyncClient(path) as client:
        async with client.watch("flood") as flood:
            await anext(flood)
            async with asyncio.timeout(10):
                while endless.running:
                    assert (await client.status()).version == VERSION
            with pytest.raises(ControlError) as caught:
                async for _ in flood:
                    pass
    assert caught.value.code == "too-slow"


async def test_without_a_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError):
        await AsyncClient(tmp_path / "none").open()


async def test_a_daemon_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(connect=0.2))
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "s"))
        hung.listen()
        with pytest.raises(ControlError, match="has not answered") as caught:
            await AsyncClient(tmp_path / "s").open()
    assert caught.value.code == "deadline"


async def test_a_call_that_is_not_answered_in_time_is_ended(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path:
        async with AsyncClient(path, timeout=0.5) as client:
            with pytest.raises(ControlError, match="did not answer"):
                await client.wait("x", timeout=0)
            await endless.until_running(0)


async def test_a_slow_call_does_not_count_as_a_hung_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(silence=0.05, answer=0.7))
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path, AsyncClient(path) as client:
        async with client.watch() as events:
            await anext(events)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await anext(events)


async def test_the_end_of_the_daemon_ends_waiting_calls(tmp_path: Path) -> None:
    endless = Endless()
    async with serving(tmp_path, endless.handlers) as path:
        client = await AsyncClient(path).open()
        waiting = asyncio.create_task(client.wait("x"))
        await endless.until_running(1)
    with pytest.raises(ControlError, match="dorad has been stopped"):
        await waiting
    await client.close()


async def test_a_client_that_is_cancelled_at_any_moment_of_connecting_leaves_no_connection(
    tmp_path: Path,
) -> None:
    """A screen is often left while it still connects: each connection was kept open for good."""
    async with serving(tmp_path, {"daemon.status": status}) as path:
        began = time.monotonic()
        await (await AsyncClient(path).open()).close()
        usual = time.monotonic() - began
        for moment in range(CANCELLED):
            opening = asyncio.create_task(AsyncClient(path).open())
            await asyncio.sleep(1.5 * usual * moment / CANCELLED)
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled():
                await opening.result().close()
        for steps in range(CANCELLED):
            opening = asyncio.create_task(AsyncClient(path).open())
            for _ in range(steps):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled():
                await opening.result().close()
        await until(lambda: not open_connections())


def open_connections() -> list[ClientConnection]:
    """Return the connections of clients in this process that are not closed."""
    gc.collect()
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, ClientConnection) and each.state is not State.CLOSED
    ]
