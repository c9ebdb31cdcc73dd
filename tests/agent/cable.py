"""A cable between an agent and its coordinator that can be cut without either being told."""

import asyncio
from contextlib import suppress


class Cable:
    """Forwards TCP connections; those that are open when it is cut stay open, and silent."""

    def __init__(self, delay: float = 0.0) -> None:
        """`delay` is how many seconds nothing passes through a new connection."""
        self._delay = delay
        self.port = 0
        self._target = 0
        self._cut = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self, target: int) -> None:
        self._target = target
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """Cut the connections that are open; new ones work."""
        self._cut.set()
        self._cut = asyncio.Event()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self._cut
        await asyncio.sleep(self._delay)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ways = [
                asyncio.create_task(_copy(reader, far_writer)),
                asyncio.create_task(_copy(far_reader, writer)),
            ]
            cutting = asyncio.create_task(cut.wait())
            await asyncio.wait([*ways, cutting], return_when=asyncio.FIRST_COMPLETED)
            silent = cut.is_set()
            for task in (*ways, cutting):
                task.cancel()
            await asyncio.wait([*ways, cutting])
            far_writer.transport.abort()
            if silent:
                # Nothing tells the agent; it gives up by itself.
                await _drain(reader)
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass
