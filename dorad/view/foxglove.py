"""A server of the WebSocket protocol of Foxglove, for one dataflow.

A channel is one kind of messages of a topic. Kinds are known from a first message, so while a
viewer is connected each topic without a channel is received once a second at most.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import secrets
import struct
from collections import Counter
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import asdict
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.typing import Subprotocol

from dorad import __version__
from dorad.node import metadata as metadata_codec
from dorad.record.encoding import extras
from dorad.record.encoding.messages import Encoded, Kind, encode_value
from dorad.view.feed import Backlog, Feed, Message, Source
from dorad.view.loopback import LOOPBACK, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.http11 import Request, Response

    from dorad.logrecord import LogRecord

SUBPROTOCOLS = ("foxglove.sdk.v1", "foxglove.websocket.v1")
PORT = 8765
"""Where Foxglove looks for a server first."""

MAX_VIEWERS = 8
MAX_SUBSCRIPTIONS = 4096
"""Subscriptions of one viewer."""
MAX_CHANNELS = 4096
MAX_REQUEST = 1 << 20
"""Bytes of one frame from a viewer."""

DISCOVER_HZ = 1.0
STATUS_S = 1.0
"""How often a viewer is told of new drops."""

_MESSAGE = struct.Struct("<BIQ")
_MESSAGE_DATA = 1
_WARNING, _ERROR = 1, 2

_log = logging.getLogger(__name__)


class Channel(NamedTuple):
    """One kind of messages of a topic."""

    id: int
    topic: str
    kind: Kind

    @property
    def advertised(self) -> dict[str, Any]:
        """What viewers are told of it."""
        text = self.kind.schema_encoding == "jsonschema"
        schema = self.kind.schema.decode() if text else base64.b64encode(self.kind.schema).decode()
        return {
            "id": self.id,
            "topic": self.topic,
            "encoding": self.kind.encoding,
            "schemaName": self.kind.schema_name,
            "schema": schema,
            "schemaEncoding": self.kind.schema_encoding,
        }


class Viewer:
    """One connected viewer: what it has subscribed to, and what waits for it."""

    def __init__(self, connection: ServerConnection, server: FoxgloveServer) -> None:
        self.channels: dict[int, int] = {}
        """The channel of each subscription."""
        self.backlog: Backlog[bytes] = Backlog()
        self._connection = connection
        self._server = server
        self._reported = 0

    async def serve(self) -> None:
        """Serve it until it leaves."""
        await self._send(self._server.info)
        self.tell("advertise", channels=[each.advertised for each in self._server.channels])
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_all())
            reporting = tasks.create_task(self._report_drops())
            try:
                async for frame in self._connection:
                    self._handle(frame)
            except ConnectionClosed as error:
                _log.debug("viewer %s: %s", self._connection.remote_address, error)
            sending.cancel()
            reporting.cancel()

    def take(self, channel: Channel, stamp: int, message: Encoded) -> None:
        """Queue a message for each of its subscriptions to a channel."""
        for subscription, wanted in self.channels.items():
            if wanted == channel.id:
                head = _MESSAGE.pack(_MESSAGE_DATA, subscription, stamp)
                frame = b"".join((head, message.head, message.body, message.tail))
                self.backlog.put(channel.topic, len(frame), frame)

    def tell(self, op: str, **content: Any) -> None:
        """Queue a text frame."""
        frame = json.dumps({"op": op, **content}).encode()
        self.backlog.put("", len(frame), frame)

    def _status(self, level: int, message: str, name: str = "") -> None:
        self.tell("status", level=level, message=message, **({"id": name} if name else {}))

    async def _send_all(self) -> None:
        while True:
            await self._send(await self.backlog.get())

    async def _send(self, frame: bytes) -> None:
        try:
            await self._connection.send(frame, text=frame[:1] == b"{")
        except ConnectionClosed:
            await asyncio.Future()  # `serve` sees it, too

    async def _report_drops(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            dropped = self.backlog.dropped + self._server.displaced
            if dropped.total() != self._reported:
                self._reported = dropped.total()
                text = ", ".join(f"{count} of {topic}" for topic, count in sorted(dropped.items()))
                self._status(
                    _WARNING, f"messages dropped, since viewing is too slow: {text}", "drops"
                )

    def _handle(self, frame: str | bytes) -> None:
        """Handle a request; whatever it is, a wrong one has an answer."""
        try:
            request = json.loads(frame) if isinstance(frame, str) else {"op": "publishing"}
            match request:
                case {"op": "subscribe", "subscriptions": list(wanted)}:
                    self._subscribe(wanted)
                case {"op": "unsubscribe", "subscriptionIds": list(ids)}:
                    for each in ids:
                        self.channels.pop(_number(each), None)
                case {"op": str(op)}:
                    self._status(_WARNING, f"dora view has no {op[:100]}")
                case _:
                    raise ValueError("a request has no `op`")
        except (ValueError, RecursionError) as error:
            self._status(_ERROR, f"invalid request: {error}"[:1000])
        self._server.update()

    def _subscribe(self, wanted: Sequence[Any]) -> None:
        for each in wanted:
            match each:
                case {"id": id_, "channelId": channel}:
                    if len(self.channels) >= MAX_SUBSCRIPTIONS:
                        raise ValueError(f"more than {MAX_SUBSCRIPTIONS} subscriptions")
                    self.channels[_number(id_)] = _number(channel)
                case _:
                    raise ValueError("a subscription needs `id` and `channelId`")


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise ValueError(f"{str(value)[:100]!r} is not an id")
    return value


class FoxgloveServer:
    """Shows the topics of one dataflow to viewers that know the token."""

    def __init__(
        self,
        source: Source,
        chosen: Callable[[str], bool],
        *,
        name: str,
        rate: float | None = None,
    ) -> None:
        """`chosen` says which topics are shown; `name` is that of the dataflow."""
        self.token = secrets.token_urlsafe(24)
        self.channels: list[Channel] = []
        self.dropped: Counter[str] = Counter()
        """What viewers were too slow for that have left."""
        self.info = json.dumps(
            {
                "op": "serverInfo",
                "name": f"dora view: {name}",
                "capabilities": [],
                "supportedEncodings": [],
                "metadata": {"dorad": __version__},
                "sessionId": secrets.token_hex(8),
            }
        ).encode()
        self._source = source
        self._chosen = chosen
        self._ids: dict[tuple[str, Kind], Channel] = {}
        self._viewers: set[Viewer] = set()
        self._topics: set[str] = set()
        self._feed = Feed(source, self._take, rate)
        self._first = Feed(source, self._take_first, DISCOVER_HZ)
        self._lines: asyncio.Task[None] | None = None
        self._channel_for(extras.LOG_TOPIC, extras.LOG)

    @property
    def displaced(self) -> Counter[str]:
        """Messages that were displaced on their way to this process, by topic."""
        return self._feed.dropped

    async def run(self, port: int | None, announce: Callable[[str], None]) -> None:
        """Listen on loopback until the dataflow ends; `announce` gets the address for viewers.

        Without a port it is `PORT`, or a free one if that is in use.

        Raises:
            OSError: the port is in use.
        """
        listener = listen(port, PORT)
        options: dict[str, Any] = {
            "select_subprotocol": _subprotocol,
            "process_request": self._check,
            "compression": None,
            "max_size": MAX_REQUEST,
            "open_timeout": 5,
            "close_timeout": 1,
            "server_header": None,
        }
        try:
            async with asyncio.TaskGroup() as self._tasks:
                feeds = [self._tasks.create_task(feed.run()) for feed in (self._feed, self._first)]
                async with serve(self._serve, sock=listener, **options):
                    announce(f"ws://{LOOPBACK}:{listener.getsockname()[1]}/{self.token}")
                    await self._follow()
                for each in (*feeds, *([self._lines] if self._lines else [])):
                    each.cancel()
        finally:
            for viewer in self._viewers:
                self.dropped += viewer.backlog.dropped

    async def _follow(self) -> None:
        """Follow the topics of the dataflow until it ends."""
        self._topics = {topic for topic in await self._source.topics() if self._chosen(topic)}
        self.update()
        async for _ in self._source.changes():
            self._topics = {topic for topic in await self._source.topics() if self._chosen(topic)}
            self.update()

    def update(self) -> None:
        """Receive what viewers want, and the first message of topics that have no channel."""
        topics = {channel.id: channel.topic for channel in self.channels}
        wanted = {
            topics[channel]
            for viewer in self._viewers
            for channel in viewer.channels.values()
            if channel in topics
        }
        known = {channel.topic for channel in self.channels}
        self._feed.want(wanted & self._topics)
        self._first.want(self._topics - known if self._viewers else ())
        if (extras.LOG_TOPIC in wanted) != (self._lines is not None):
            if self._lines is not None:
                self._lines.cancel()
                self._lines = None
            else:
                self._lines = self._tasks.create_task(self._take_lines())

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse who does not know the token, or one viewer too many."""
        given = request.path.removeprefix("/").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.token.encode()):
            _log.warning("a viewer without the token was refused")
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the address lacks the token\n")
        if len(self._viewers) >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} viewers are connected\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        viewer = Viewer(connection, self)
        _log.debug("viewer %s connects", connection.remote_address)
        self._viewers.add(viewer)
        self.update()
        try:
            await viewer.serve()
        finally:
            self._viewers.discard(viewer)
            self.dropped += viewer.backlog.dropped
            self.update()
            _log.debug("viewer %s has left, dropped: %s", connection.id, viewer.backlog.dropped)

    def _take_first(self, message: Message) -> None:
        """Make a channel for the kind of a message, which nobody has subscribed to."""
        self._encode(message)

    def _take(self, message: Message) -> None:
        made = self._encode(message)
        if made is not None:
            for viewer in self._viewers:
                viewer.take(made.channel, message.stamp, made.message)

    async def _take_lines(self) -> None:
        async for lines in self._source.lines():
            for line in lines:
                stamp = round(line.timestamp * 1e9)
                channel = self._channel_for(extras.LOG_TOPIC, extras.LOG)
                assert channel is not None
                encoded = extras.log_line(_as_fields(line), stamp)
                for viewer in self._viewers:
                    viewer.take(channel, stamp, encoded)

    def _encode(self, message: Message) -> _Made | None:
        """Return a message and its channel; None if there are too many, or Arrow refuses it."""
        meta = metadata_codec.encode(message.metadata) if message.metadata else b""
        try:
            encoded = encode_value(message.array, None, meta, message.stamp)
        except ValueError as error:
            _log.warning("a message of %s cannot be shown: %s", message.topic, error)
            return None
        channel = self._channel_for(message.topic, encoded.kind)
        return None if channel is None else _Made(channel, encoded)

    def _channel_for(self, topic: str, kind: Kind) -> Channel | None:
        """Return the channel of a kind of messages; None if there are too many."""
        channel = self._ids.get((topic, kind))
        if channel is None:
            if len(self.channels) >= MAX_CHANNELS:
                return None
            channel = self._ids[topic, kind] = Channel(len(self.channels) + 1, topic, kind)
            self.channels.append(channel)
            _log.debug("channel %d: %s as %s", channel.id, topic, kind.schema_name)
            for viewer in self._viewers:
                viewer.tell("advertise", channels=[channel.advertised])
            if self._viewers:
                self.update()
        return channel


class _Made(NamedTuple):
    """A message as viewers get it."""

    channel: Channel
    message: Encoded


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol:
    for each in SUBPROTOCOLS:
        if each in offered:
            return Subprotocol(each)
    raise NegotiationError(f"subprotocols: {', '.join(SUBPROTOCOLS)}")


def _as_fields(line: LogRecord) -> dict[str, Any]:
    """Return a log line as nodes get it from `dora/logs`."""
    moment = datetime.fromtimestamp(line.timestamp, UTC).isoformat()
    fields = {name: value for name, value in asdict(line).items() if value is not None}
    return fields | {"timestamp": moment, "node_id": line.node}
