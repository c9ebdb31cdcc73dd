"""One subscription process and the observer it attaches as."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REPLY
from dorad.daemon.broker.broker import Broker
from dorad.daemon.subscription.frames import PREFIX, head
from dorad.dataflow.model import Input
from dorad.launch.helper import HelperHost, helper_environment
from dorad.launch.model import Command, LaunchError
from dorad.launch.spawner import Process

_PIPE = 1 << 20

_log = logging.getLogger(__name__)


class Head(msgspec.Struct):
    """The JSON of a frame from the process; see `frames` for the kinds."""

    kind: Literal["ready", "message", "sent", "error"]
    topic: str = ""
    displaced: int = 0
    metadata: dict[str, Any] = {}
    text: str = ""


class Frame(NamedTuple):
    """One frame from the process, which is checked: hostile messages may have taken it over."""

    head: Head
    payload: bytes


class ObserverProcess:
    """A subscription process and its observer in the dataflow. `end` removes both."""

    def __init__(self, broker: Broker, helpers: HelperHost, observer_id: str) -> None:
        self.id = observer_id
        self._broker = broker
        self._helpers = helpers
        self._process: Process | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closing_stdio: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(
        self,
        task: str,
        inputs: tuple[Input, ...] = (),
        outputs: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
        queue_size: int = 1,
        reduce: str = "",
    ) -> None:
        """Start the process and wait until it has joined the dataflow.

        `reduce` says how it makes messages smaller.

        Raises:
            ControlError: it cannot join.
        """
        try:
            await self._broker.observers.add(self.id, inputs, outputs or {})
            arguments = (str(self._helpers.parent), task, str(queue_size), self.id, reduce)
            module = "dorad.daemon.subscription.process"
            await self._start_process(
                Command(
                    (sys.executable, "-P", "-s", "-m", module, *arguments),
                    Path("/"),
                    helper_environment(os.environ),
                )
            )
            if self._stopped:  # while it started
                self.stop()
            if await self.receive() is None:
                raise ControlError("not-found", "the dataflow has ended")
        except KeyError as error:
            raise ControlError("not-found", f"{error.args[0]} has just been removed") from error
        except (OSError, LaunchError) as error:
            raise ControlError("internal", f"cannot join the dataflow: {error}") from error
        _log.debug("observer %s has joined to %s", self.id, task)

    async def _start_process(self, command: Command) -> None:
        """Start the process with one end of each of two connections. Raises LaunchError."""
        with ExitStack() as on_error, ExitStack() as theirs:
            ends = [socket.socketpair(), socket.socketpair(type=socket.SOCK_SEQPACKET)]
            for ours, other in ends:
                on_error.enter_context(ours)
                theirs.enter_context(other)
            (stdio, their_stdio), (link, their_link) = ends
            tag = f"{self._broker.dataflow_id}/{self.id}"
            self._process = await self._helpers.start_helper(
                command, their_stdio.fileno(), their_link.fileno(), tag=tag
            )
            self._streams = await asyncio.open_unix_connection(sock=stdio, limit=_PIPE)
            self._broker.observers.connect(self.id, link, self._process.pid)
            on_error.pop_all()
        self._closing_stdio = asyncio.create_task(
            _close_after(self._process, stdio), name=f"end of {tag}"
        )

    async def send(self, content: dict[str, Any]) -> None:
        """Send the process an order. Raises ControlError if it has ended."""
        assert self._streams is not None
        _, writer = self._streams
        writer.write(head(content))
        try:
            await writer.drain()
        except ConnectionError as error:
            raise ControlError("internal", "the subscription process has ended") from error

    async def receive(self) -> Frame | None:
        """Return the next frame; None once the observer was removed or `stop` was called.

        Raises:
            ControlError: the process reports an error, sent an invalid frame, or died.
        """
        assert self._process is not None
        assert self._streams is not None
        out, _ = self._streams
        try:
            size, payload = PREFIX.unpack(await out.readexactly(PREFIX.size))
            _check_size("metadata", size)
            decoded = _decode(await out.readexactly(size))
            _check_size(f"a message of {decoded.topic}", payload)
            frame = Frame(decoded, await out.readexactly(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            exited = await self._process.wait()
            if not exited.ok and not self._stopped:
                code = exited.code if exited.signal is None else -exited.signal
                raise ControlError(
                    "internal", f"the subscription process exited with {code}", "try again"
                ) from None
            return None
        if decoded.kind == "error":
            raise ControlError("refused", decoded.text)
        return frame

    def stop(self) -> None:
        """Kill the process; `receive` still returns the frames that it has sent."""
        self._stopped = True
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    async def end(self) -> None:
        """Kill the process, wait for its exit and remove the observer from the dataflow."""
        _log.debug("observer %s ends", self.id)
        self.stop()
        try:
            if self._streams is not None:
                _, writer = self._streams
                writer.close()
            if self._process is not None:
                await self._process.wait()
            if self._closing_stdio is not None:
                await self._closing_stdio
        finally:
            self._broker.observers.remove(self.id)


def _check_size(what: str, size: int) -> None:
    if size > MAX_REPLY:
        raise ControlError("too-large", f"{what} has {size} bytes; {MAX_REPLY} are allowed")


def _decode(data: bytes) -> Head:
    try:
        return msgspec.json.decode(data, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"the subscription process sent an invalid frame: {error}"
        raise ControlError("internal", text, "try again") from error


async def _close_after(process: Process, stdio: socket.socket) -> None:
    """Shut the connection down when the process exits, because systemd holds its other end longer.

    Frames that the process wrote before its exit can still be read.
    """
    await process.wait()
    with contextlib.suppress(OSError):  # it is closed already
        stdio.shutdown(socket.SHUT_RDWR)
