"""The harness's end of the nursery: start a node's process, signal it, wait for its end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwtests.torture.part import Part

PACKET = 1 << 16


class NurseryError(Exception):
    """The nursery is gone."""


class Child:
    """A node's process. `ended` becomes its exit code, negative for a signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Nursery:
    """The process that forks nodes, as an asynchronous context."""

    async def __aenter__(self) -> Nursery:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns once the child has started
                [sys.executable, "-m", "hwtests.torture.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Threads of numpy's libraries would not survive the fork.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
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

    async def start(self, part: Part) -> Child:
        """Fork a process that plays this part."""
        future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._starting[part.node] = future
        self._channel.send(json.dumps({"start": part.to_json()}).encode())
        return await future

    def signal(self, child: Child, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._channel.send(json.dumps({"pid": child.pid, "signal": number}).encode())

    def _readable(self) -> None:
        try:
            packet = self._channel.recv(PACKET)
        except ConnectionResetError:
            packet = b""
        if not packet:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            for future in self._starting.values():
                future.set_exception(NurseryError("the process that forks nodes has ended"))
            return
        said = json.loads(packet)
        if "started" in said:
            child = self._children[said["pid"]] = Child(said["pid"])
            self._starting.pop(said["started"]).set_result(child)
        else:
            self._children.pop(said["ended"]).ended.set_result(said["code"])
