"""A slow line between two machines that are on loopback."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.harness.waiting import DEADLINE_S

from .ports import free_port

RATE = 200_000
"""Bytes a second of the line: 1.6 Mbit/s."""
PIECE = 2000
MODEM = 16 << 10
"""Bytes that the line holds in each direction."""


@asynccontextmanager
async def slow_line(target: int) -> AsyncIterator[int]:
    """Pass connections on at `RATE` each way; give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", target, limit=MODEM)
        except OSError:
            writer.close()  # alpha does not listen yet
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, back))
            group.create_task(carry(there, writer))

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        free_s = time.monotonic()
        try:
            while data := await source.read(PIECE):
                free_s = max(free_s, time.monotonic()) + len(data) / RATE
                await asyncio.sleep(free_s - time.monotonic())
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            sink.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=MODEM)
    try:
        yield port
    finally:
        server.close()


@contextmanager
def slow_line_beside(target: int) -> Iterator[int]:
    """Do the same in a thread, for tests that have no event loop."""
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    ports: list[int] = []
    is_open = threading.Event()

    async def serve() -> None:
        async with slow_line(target) as port:
            ports.append(port)
            is_open.set()
            await done.wait()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert is_open.wait(DEADLINE_S)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(DEADLINE_S)
        loop.close()
