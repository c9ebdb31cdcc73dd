"""A server that is slow, wrong, older or gone: nothing wrong is shown, and nothing hangs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dorad.control.target import UnixSocket
from dorafleet.console.app import ConsoleApp
from dorafleet.console.link.server import Server
from dorafleet.console.options import ConsoleOptions

from .driving import DEADLINE_S, console, console_at
from .fakefleet import FakeFleet

GREETING = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@asynccontextmanager
async def listening(
    folder: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[UnixSocket]:
    """Let something that is no server of ours listen at a socket."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(handle, folder / "control.sock")
    try:
        yield UnixSocket(folder / "control.sock")
    finally:
        server.close()


async def _closes(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def _web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(GREETING + b"\x81\x05{\x1b]0;" + bytes(range(256)))


async def _silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("serve", [_closes, _web, _noise, _silent])
async def test_what_is_no_server_of_ours_is_an_error_and_is_asked_again(
    tmp_path: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    async with listening(tmp_path, serve) as target, console_at(target) as driven:
        text = await driven.until(lambda: "dorad" in "".join(driven.text.splitlines()[-5:]))
        assert "OK" not in text and "all is well" not in text
        await driven.until("retry in")
        await driven.press("question_mark")
        await driven.until("Keys")
        await driven.press("q")
        await driven.until(lambda: not driven.app.is_running)


async def test_a_server_that_no_longer_answers_makes_everything_stale(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        fleet.hangs = True
        text = await driven.until("STALE")
        assert "OK" not in text
        fleet.hangs = False


async def test_a_server_that_ends_its_stream_of_rows_is_asked_again(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        fleet.ends.set()
        fleet.bell.ring()
        await driven.until("STALE")
        fleet.ends.clear()
        fleet.put("arm004")
        await driven.until("4 of 4")


async def test_an_older_server_is_reported_and_the_rest_works(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.without = ("fleet.watch", "alerts.watch", "top.watch")
    async with console(tmp_path, fleet) as driven:
        text = await driven.until("too old to list robots")
        assert "this server is too old to judge alerts" in text
        assert "all is well" not in text
        driven.app.go_to("top")
        await driven.until("does not offer what this screen shows")
        driven.app.go_to("topics pick")
        await driven.until("camera/image")


def _broken() -> pa.Array:
    """Return texts whose offsets point out of their buffer."""
    offsets = pa.py_buffer(np.array([0, 1_000_000, 2], np.int32).tobytes())
    return pa.Array.from_buffers(pa.utf8(), 2, [None, offsets, pa.py_buffer(b"ab")])


async def test_a_message_that_is_no_array_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", _broken(), {})]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        await driven.until("a message of `camera/image` cannot be read")
        await driven.press("escape")
        await driven.until("1 of 1")


async def test_a_bug_beside_the_screens_ends_the_console_with_its_traceback() -> None:
    async def broken() -> None:
        raise RuntimeError("a bug")

    app = ConsoleApp(Server(broken), ConsoleOptions())
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(DEADLINE_S), app.run_test() as pilot:
            while app.is_running:
                await pilot.pause(0.01)
    assert app.return_code == 1
