"""Who looks into a running dataflow, or sends into it, through the control API.

The daemon itself never touches messages: each subscription is a small process, a tap, that takes
part in the dataflow as one more node and hands the daemon what it receives. For a slow reader it
keeps copies of the newest messages; nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Published, TopicHeader
from dorad.daemon.tap.frames import PREFIX, head
from dorad.dataflow.model import Input, NodeOutput
from dorad.launch.helper import LocalHelpers, helper_environment
from dorad.launch.model import Command, LaunchError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from dorad.daemon.broker.broker import Broker
    from dorad.launch.helper import HelperHost
    from dorad.launch.spawner import Process

MAX_TAPS = 16
"""At a time, of one dataflow: each is a process of some 60 MB."""

LONGEST_QUEUE = 4096
"""Messages of a topic that wait for a slow reader at most, whatever it asks for."""

IDLE_S = 5.0
"""How long a tap that has published waits for more of the same."""

_PIPE = 1 << 20
_RING_BYTES = 32 << 20
_FEWEST, _FEW = 4, 16

_log = logging.getLogger(__name__)


class _Frame(NamedTuple):
    kind: str
    content: dict[str, Any]
    payload: bytes


class _Observer:
    """A tap's process and its place in the dataflow."""

    def __init__(self, broker: Broker, helpers: HelperHost, observer_id: str) -> None:
        self.id = observer_id
        self._broker = broker
        self._helpers = helpers
        self._process: Process | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(
        self,
        task: str,
        inputs: tuple[Input, ...] = (),
        outputs: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
        queue_size: int = 1,
    ) -> None:
        """Join the dataflow. Raises ControlError if it cannot."""
        try:
            await self._broker.add_observer(self.id, inputs, outputs or {})
            arguments = (str(self._helpers.parent), task, str(queue_size), self.id)
            await self._start(
                Command(
                    (sys.executable, "-P", "-s", "-m", "dorad.daemon.tap.process", *arguments),
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
            raise ControlError("internal", f"nobody can join the dataflow: {error}") from error

    async def _start(self, command: Command) -> None:
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
            self._broker.connect_observer(self.id, link, self._process.pid)
            on_error.pop_all()
        self._ending = asyncio.create_task(_end_of(self._process, stdio), name=f"end of {tag}")

    async def send(self, content: dict[str, Any]) -> None:
        """Give the process an order. Raises ControlError if it has ended."""
        assert self._streams is not None
        _, writer = self._streams
        writer.write(head(content))
        try:
            await writer.drain()
        except ConnectionError as error:
            raise ControlError("internal", "the tap has ended") from error

    async def receive(self) -> _Frame | None:
        """The next frame; None when the dataflow has let go of the tap.

        Raises ControlError with what the process has to complain of, or if it died.
        """
        assert self._process is not None
        assert self._streams is not None
        out, _ = self._streams
        try:
            size, payload = PREFIX.unpack(await out.readexactly(PREFIX.size))
            content: dict[str, Any] = msgspec.json.decode(await out.readexactly(size))
            frame = _Frame(content.pop("kind"), content, await out.readexactly(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            ended = await self._process.wait()
            if not ended.ok and not self._stopped:
                code = ended.code if ended.signal is None else -ended.signal
                raise ControlError(
                    "internal", f"the tap's process ended with {code}", "try again"
                ) from None
            return None
        if frame.kind == "error":
            raise ControlError("refused", content["text"])
        return frame

    def stop(self) -> None:
        """End the process; what it has sent already can be received."""
        self._stopped = True
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    async def end(self) -> None:
        """End the process and take the guest out of the dataflow."""
        _log.debug("tap %s ends", self.id)
        self.stop()
        try:
            if self._streams is not None:
                _, writer = self._streams
                writer.close()
            if self._process is not None:
                await self._process.wait()
            if self._ending is not None:
                await self._ending
        finally:
            self._broker.remove_observer(self.id)


async def _end_of(process: Process, stdio: socket.socket) -> None:
    """Let the reader come to an end with the process: systemd keeps the other end open for longer.

    What the process has written before can still be read.
    """
    await process.wait()
    with contextlib.suppress(OSError):  # it is closed already
        stdio.shutdown(socket.SHUT_RDWR)


class Tap:
    """Messages of some outputs as they are sent: an async context manager and iterator.

    Yields a header and an Arrow IPC stream. It ends when the dataflow does.
    """

    def __init__(
        self,
        broker: Broker,
        helpers: HelperHost,
        observer_id: str,
        topics: Sequence[NodeOutput],
        *,
        queue_size: int,
    ) -> None:
        """`queue_size` is how many messages of each topic wait for a slow reader."""
        self.topics = tuple(dict.fromkeys(str(topic) for topic in topics))
        self._broker = broker
        self._guest = _Observer(broker, helpers, observer_id)
        self._queue_size = min(max(queue_size, 1), LONGEST_QUEUE)
        self._inputs = tuple(
            Input(str(topic), topic, min(self._queue_size, _ring_size(broker, topic)))
            for topic in dict.fromkeys(topics)
        )
        self._counts = dict.fromkeys(self.topics, 0)
        self._missed = dict.fromkeys(self.topics, 0)
        self._before: dict[str, int] = {}
        self.joined = False
        """Whether it is part of the dataflow now."""

    def stop(self) -> None:
        """End the iteration soon."""
        self._guest.stop()

    @property
    def observer(self) -> str:
        """Its id among the members of the dataflow; its inputs are called like the topics."""
        return self._guest.id

    async def __aenter__(self) -> Tap:
        try:
            await self._guest.start("echo", self._inputs, queue_size=self._queue_size)
            # What came before the process was there is not lost: nobody had asked for it yet.
            self._before = {topic: self._displaced(topic) for topic in self.topics}
            self.joined = True
        except BaseException:
            await self._guest.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.joined = False
        await self._guest.end()

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> tuple[TopicHeader, bytes]:
        frame = await self._guest.receive()
        if frame is None:
            raise StopAsyncIteration
        topic = frame.content["topic"]
        self._counts[topic] += 1
        with contextlib.suppress(KeyError):  # the dataflow has ended, and left this to be read
            self._missed[topic] = max(self._displaced(topic) - self._before[topic], 0)
        header = TopicHeader(
            stream=0,
            topic=topic,
            sequence=self._counts[topic],
            dropped=self._missed[topic] + frame.content["displaced"],
            metadata=frame.content["metadata"],
        )
        return header, frame.payload

    def _displaced(self, topic: str) -> int:
        """Messages that the process was too busy to take."""
        return self._broker.edge_counters_of(self._guest.id, topic).dropped


def _ring_size(broker: Broker, topic: NodeOutput) -> int:
    """How many messages wait in shared memory until the process, which is quick, copies them."""
    sizes = [
        seen.payload_bytes // seen.sent
        for seen in broker.counters()
        if seen.sent and (seen.source_node, seen.output) == (topic.node, topic.output)
    ]
    if not sizes:
        return _FEW
    return min(max(_RING_BYTES // max(*sizes, 1), _FEWEST), LONGEST_QUEUE)


class _Publisher:
    """A tap that sends on one output."""

    def __init__(
        self, observer: _Observer, topic: str, targets: tuple[tuple[str, str], ...]
    ) -> None:
        self.observer = observer
        self.topic = topic
        self.targets = targets


class Taps:
    """All taps of one dataflow. Belongs to one event loop."""

    def __init__(self, broker: Broker, helpers: HelperHost | None = None) -> None:
        """`helpers` starts their processes; without it they are children of this one."""
        self._broker = broker
        self._helpers = LocalHelpers() if helpers is None else helpers
        self._open: set[Tap] = set()
        self._publisher: _Publisher | None = None
        self._publishing = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._joined = 0

    async def subscribe(
        self, topics: Sequence[NodeOutput], *, queue_size: int, stream: int
    ) -> AsyncGenerator[tuple[TopicHeader, bytes], None]:
        """What the outputs send from now on, until closed or the dataflow ends.

        `stream` goes into the headers. Raises ControlError.
        """
        if len(self._open) >= MAX_TAPS:
            raise ControlError(
                "busy", f"{MAX_TAPS} clients receive topics of this dataflow", "end one of them"
            )
        name = self._name()
        tap = Tap(self._broker, self._helpers, name, topics, queue_size=queue_size)
        self._open.add(tap)
        try:
            async with tap:
                async for header, payload in tap:
                    header.stream = stream
                    yield header, payload
        finally:
            self._open.discard(tap)

    async def publish(
        self,
        topic: NodeOutput,
        targets: Sequence[tuple[str, str]],
        data: list[Any],
        metadata: dict[str, Any],
    ) -> Published:
        """Send each entry of `data` as a message of `topic`, to the inputs `targets` (node, input).

        Those who subscribe to it get it too. A list becomes an array of its items, anything else an
        array of one. Raises ControlError; nothing is sent then if a value is no Arrow data.
        """
        name = str(topic)
        watching = [(tap.observer, name) for tap in self._open if tap.joined and name in tap.topics]
        everybody = (*targets, *watching)
        if everybody and data:
            async with self._publishing:
                publisher = await self._publisher_of(name, topic.output, everybody)
                await self._send(publisher, data, metadata)
        return Published(messages=len(data), subscribers=len(everybody))

    async def close(self) -> None:
        """End all of them: subscriptions stop yielding. For the end of the dataflow."""
        for tap in self._open:
            tap.stop()
        await self._end_publishing()

    async def _end_publishing(self) -> None:
        async with self._publishing:
            await self._retire()

    def _name(self) -> str:
        self._joined += 1
        return f".tap-{self._joined}"

    async def _publisher_of(
        self, topic: str, output: str, targets: tuple[tuple[str, str], ...]
    ) -> _Publisher:
        """The tap that sends to `targets`: the last one if it still fits, else a new one."""
        kept = self._publisher
        if kept is not None and (kept.topic, kept.targets) == (topic, targets):
            return kept
        await self._retire()
        observer = _Observer(self._broker, self._helpers, self._name())
        publisher = _Publisher(observer, topic, targets)
        self._publisher = publisher
        try:
            await publisher.observer.start("publish", outputs={output: targets})
        except BaseException:
            await self._retire()
            raise
        return publisher

    async def _send(self, publisher: _Publisher, data: list[Any], metadata: dict[str, Any]) -> None:
        answer = None
        refused = False
        try:
            await publisher.observer.send({"data": data, "metadata": metadata})
            answer = await publisher.observer.receive()
        except ControlError as error:
            refused = error.code == "refused"
            raise
        finally:
            if answer is None and not refused:
                await self._retire()
        if answer is None:
            raise ControlError("not-found", "the dataflow has ended")
        self._keep_for_a_while()

    def _keep_for_a_while(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._ending = loop.create_task(self._end_publishing())

        self._idle = loop.call_later(IDLE_S, end)

    async def _retire(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.observer.end()
