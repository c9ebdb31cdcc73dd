"""Answers `dora trace` and `dora graph --live` for a `dora run`, which has no daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.shm.rendezvous import RUN_SOCKETS, runtime_dir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.daemon.run import DataflowRun

_BACKLOG = 8

_log = logging.getLogger(__name__)


@asynccontextmanager
async def answering(run: DataflowRun, name: str) -> AsyncIterator[None]:
    """Answer methods for traces and figures while a dataflow runs; `name` is what it is called.

    What that needs is imported when the first client connects: most runs have none.

    Raises:
        OSError: there can be no socket.
    """
    path = runtime_dir() / RUN_SOCKETS.format(pid=os.getpid())
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    serving: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()

    def begin() -> None:
        nonlocal serving
        loop.remove_reader(sock)
        _log.debug("the first client asks for traces")
        serving = asyncio.create_task(_serve(run, name, sock), name="control server")

    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
        loop.add_reader(sock, begin)
        yield
    finally:
        path.unlink(missing_ok=True)
        if serving is None:
            loop.remove_reader(sock)
            sock.close()
        else:
            serving.cancel()
            await asyncio.wait({serving})


async def _serve(run: DataflowRun, name: str, sock: socket.socket) -> None:
    """Answer clients until cancelled. Takes ownership of the socket."""
    from dorad.cli.runmethods import RunMethods
    from dorad.control.server import ControlServer, HandlerTable
    from dorad.daemon.api.traces import TracedDataflow, TraceMethods

    methods = RunMethods(run, name)

    def find(wanted: str | None) -> list[TracedDataflow]:
        methods.check(wanted)
        return [TracedDataflow(run.dataflow_id, name, run.tracer)]

    table = HandlerTable.of(methods, TraceMethods(run.traces, find))
    server = ControlServer(table, version=__version__, name="dora run")
    await server.serve_unix(sock)
    try:
        await methods.measure()
    finally:
        await server.close()
