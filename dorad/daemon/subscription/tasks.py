"""The tasks of a subscription process: `echo` and `publish`.

The process attaches to the dataflow as an observer, which works like a node that no file declares.
`echo` writes every message of its inputs to standard output. `publish` reads orders from standard
input and sends them on its only output. The process ends when standard input ends, when the daemon
dies, or when the broker removes the observer.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from array import array
from collections import Counter, deque
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from dorad.daemon.subscription.frames import PREFIX, head
from dorad.launch.helper import LINK
from dorad.node import attach, protocol
from dorad.node.clock import Clock
from dorad.node.sender import Sender
from dorad.shm.layout import DEFAULT_KEEP
from dorad.vitalthread import vital_thread

if TYPE_CHECKING:
    from dorad.shm.nested import Encoded


# Type codes of `dorad.shm.arrow`, which imports pyarrow.
INT64_CODE = 4
FLOAT64_CODE = 11
BOOL_CODE = 14
TEXT_CODE = 100

_INT64 = range(-(1 << 63), 1 << 63)
_MAX_TEXT = (1 << 31) - 1


def encode_plain(value: Any) -> Encoded | None:
    """Encode a scalar, or a list of scalars of one type, as an array that can be sent.

    Return None for anything else, which needs pyarrow.
    """
    items = value if isinstance(value, list) else [value]
    kinds = {type(item) for item in items}
    if kinds == {int} and all(item in _INT64 for item in items):
        return _encoded(INT64_CODE, len(items), array("q", items).tobytes())
    if kinds == {float}:
        return _encoded(FLOAT64_CODE, len(items), array("d", items).tobytes())
    if kinds == {bool}:
        bits = sum(item << at for at, item in enumerate(items))
        return _encoded(BOOL_CODE, len(items), bits.to_bytes((len(items) + 7) >> 3, "little"))
    return _encode_texts(items) if kinds == {str} else None


def _encode_texts(items: list[str]) -> Encoded | None:
    try:
        texts = [item.encode() for item in items]
    except UnicodeEncodeError:
        return None
    ends = list(accumulate(map(len, texts), initial=0))
    if ends[-1] > _MAX_TEXT:
        return None
    table = array("i", ends).tobytes()
    table += bytes(-len(table) % 8)
    return _encoded(TEXT_CODE, len(items), table + b"".join(texts))


def _encoded(code: int, length: int, payload: bytes) -> Encoded:
    return (code, length, 0, len(payload), ((0, payload),))


MAX_BYTES = 32 << 20


class Message(NamedTuple):
    """One message of a topic, copied out of shared memory."""

    topic: str
    metadata: dict[str, Any]
    payload: bytes | memoryview


class Outbox:
    """Queue between the thread that receives, which never waits, and the one that writes.

    Messages here are copies: a slow reader must not make nodes keep their samples.
    """

    def __init__(self, queue_size: int, max_bytes: int = MAX_BYTES) -> None:
        """Keep up to `queue_size` messages of each topic, and up to `max_bytes` in all.

        The newest message is kept, even if it is larger.
        """
        self._queue_size = queue_size
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._waiting: Counter[str] = Counter()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.displaced: Counter[str] = Counter()
        """Number of displaced messages, by topic."""

    def put(self, message: Message) -> None:
        """Add a message, without waiting; displace old ones if the queue is full."""
        with self._changed:
            self._messages.append(message)
            self._waiting[message.topic] += 1
            self._bytes += len(message.payload)
            if self._waiting[message.topic] > self._queue_size:
                self._displace(next(m for m in self._messages if m.topic == message.topic))
            while self._bytes > self._max_bytes and len(self._messages) > 1:
                self._displace(self._messages[0])
            self._changed.notify()

    def get(self) -> Message | None:
        """Wait for the oldest message and return it; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed)
            if not self._messages:
                return None
            return self._take(self._messages[0])

    def close(self) -> None:
        """Let `get` return None once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _displace(self, message: Message) -> None:
        self._take(message)
        self.displaced[message.topic] += 1

    def _take(self, message: Message) -> Message:
        # Compare by identity: equality would read the payloads.
        at = next(at for at, each in enumerate(self._messages) if each is message)
        del self._messages[at]
        self._waiting[message.topic] -= 1
        self._bytes -= len(message.payload)
        return message


def serve(task: str, queue_size: int, observer_id: str, reduce: str) -> None:
    """Attach to the dataflow as `observer_id` and run `task` until it ends.

    `reduce` says how `echo` makes messages smaller, see `reducing`.
    """
    os.environ[protocol.CONFIG] = attach.connected(observer_id, int(os.environ.pop(LINK)))
    # Output that a library prints must not mix with frames.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    if task == "echo":
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        if task == "echo":
            _echo(out, queue_size, reduce)
        else:
            _publish(out)
    except RuntimeError as error:
        _write(out, {"kind": "error", "text": str(error)})
    except ConnectionError:
        os._exit(0)  # the client has ended the subscription


def _end_with_input() -> None:
    """Exit when standard input ends, even if another thread waits for a message or for room."""
    try:
        while os.read(0, 1):  # not sys.stdin: its lock would block a normal exit
            pass
    finally:
        os._exit(0)


def _echo(out: BinaryIO, queue_size: int, reduce: str) -> None:
    """Write each received message. Raises RuntimeError if it cannot join the dataflow."""
    from dorad.control.arrays import to_ipc
    from dorad.daemon.subscription.reducing import Reducer
    from dorad.node.node import Node

    reducer = Reducer.of(reduce)
    node = Node()
    _write(out, {"kind": "ready"})
    outbox = Outbox(queue_size)
    # The client learns of an error by the end of the process.
    writer = vital_thread(_write_all, outbox, out, name="writer")
    writer.start()
    while (event := node.next()) is not None and event["type"] != "STOP":
        if event["type"] == "INPUT" and reducer.is_due(event["id"], time.monotonic()):
            metadata = _plain(event["metadata"])
            value, metadata = reducer.reduce(event["value"], metadata)
            message = Message(event["id"], metadata, to_ipc(value))
            del value
            del event  # so that the sender can reuse its sample
            outbox.put(message)
    outbox.close()
    writer.join()


def _write_all(outbox: Outbox, out: BinaryIO) -> None:
    while (message := outbox.get()) is not None:
        topic, metadata, payload = message
        content = {"kind": "message", "topic": topic, "displaced": outbox.displaced[topic]}
        _write(out, content | {"metadata": metadata}, payload)


def _publish(out: BinaryIO) -> None:
    """Carry out orders to send. Raises RuntimeError if it cannot join the dataflow.

    Uses only the sending part of a `Node`, because it starts faster and a client waits for it.
    """
    place = attach.decide(None, None, os.environ)
    assert isinstance(place, attach.Connected)
    session = attach.connect(place)
    try:
        session.wait_for_start()
        sender = Sender(session, Clock(), DEFAULT_KEEP)
        (output,) = session.config["outputs"]
        _write(out, {"kind": "ready"})
        orders = sys.stdin.buffer
        while prefix := orders.read(PREFIX.size):
            size, _ = PREFIX.unpack(prefix)
            order = json.loads(orders.read(size))
            try:
                _send(sender, output, order["data"], order["metadata"])
            except (ValueError, RuntimeError, TypeError, OverflowError) as error:
                _write(out, {"kind": "error", "text": str(error)})
            else:
                _write(out, {"kind": "sent"})
    finally:
        session.done()


def _send(sender: Sender, output: str, values: list[Any], metadata: dict[str, Any]) -> None:
    """Send all values, or none. Raises as `Node.send_output`, and ValueError for invalid data."""
    messages = [_array(value) for value in values]
    for message in messages:
        sender.send_encoded(output, message, metadata)


def _array(value: Any) -> Encoded:
    encoded = encode_plain(value)
    if encoded is None:
        from dorad.node.offline.arrowjson import from_json
        from dorad.shm.arrow import encode

        encoded = encode(from_json(value))
    return encoded


def _plain(value: Any) -> Any:
    """Return a metadata value as JSON: a time as ISO 8601 text, NaN and infinities as null.

    Text that is not Unicode, which JSON can have but no UTF-8, is escaped as in Python.
    """
    match value:
        case str():
            return value if value.isascii() else value.encode(errors="backslashreplace").decode()
        case datetime():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _write(out: BinaryIO, content: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    rest = memoryview(payload)
    start = memoryview(head(content, len(rest)))
    try:
        while start or rest:
            part = start or rest
            written = out.write(part) or 0
            if start:
                start = start[written:]
            else:
                rest = rest[written:]
    except ConnectionError:
        os._exit(0)
