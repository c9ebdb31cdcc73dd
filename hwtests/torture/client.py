"""The client of the fork server: start a node's process, signal it, wait for its end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from dorad.shm.native import VARIABLE

if TYPE_CHECKING:
    from hwtests.torture.spec import ProcessSpec

PACKET = 1 << 16


class ForkServerError(Exception):
    """The fork server has exited."""


class Child:
    """A node's process. `ended` becomes its exit code, negative for a signal."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._channel = channel

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._channel.send(json.dumps({"pid": self.pid, "signal": number}).encode())


class ForkServer:
    """A process that forks nodes, as an asynchronous context; `native` is their data plane."""

    def __init__(self, *, native: bool) -> None:
        self.native = native
        self.started = 0

    async def __aenter__(self) -> ForkServer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns once the child has started
                [sys.executable, "-m", "hwtests.torture.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Threads of numpy's libraries would not survive the fork.
                env={
                    **os.environ,
                    "OPENBLAS_NUM_THREADS": "1",
                    VARIABLE: "1" if self.native else "0",
                },
            )
        ours.setblocking(False)
        self._channel = ours
        self._starting: dict[str, asyncio.Future[Child]] = {}
        self._children: dict[int, Child] = {}
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        await asyncio.to_thread(self._process.wait)

    async def start(self, spec: ProcessSpec) -> Child:
        """Fork a process of a node, and return it."""
        future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._starting[spec.node] = future
        self._channel.send(json.dumps({"start": spec.to_json()}).encode())
        return await future

    def _readable(self) -> None:
        try:
            packet = self._channel.recv(PACKET)
        except ConnectionResetError:
            packet = b""
        if not packet:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            for future in self._starting.values():
                future.set_exception(ForkServerError("the process that forks nodes has ended"))
            return
        reply = json.loads(packet)
        if "started" in reply:
            child = self._children[reply["pid"]] = Child(reply["pid"], self._channel)
            self.started += 1
            self._starting.pop(reply["started"]).set_result(child)
        else:
            self._children.pop(reply["ended"]).ended.set_result(reply["code"])
