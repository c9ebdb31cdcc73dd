"""Convert D-Bus messages between bytes and plain values; read bodies of trusted senders only."""

from __future__ import annotations

import array
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jeepney import Header, HeaderFields, Message, MessageFlag, MessageType
from jeepney.low_level import (
    Array,
    DictEntry,
    Endianness,
    Struct,
    Variant,
    calc_msg_size,
    endian_map,
    parse_signature,
)

MAX_HEADER = 64 << 10
MAX_MESSAGE = 16 << 20
"""Maximum size of a message that is read; a longer one is skipped."""
_FIXED = 16
"""Size of the part of a message that contains its length."""
_log = logging.getLogger(__name__)


class BusError(Exception):
    """An error that systemd returned, or a failure to reach it; `str()` is the reason.

    `name` is the error's name on D-Bus, or `no-bus` where the connection was lost.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class ProtocolError(Exception):
    """The received bytes are not D-Bus."""


class Inbox:
    """Splits a stream of bytes into messages; skips those of unknown senders."""

    def __init__(self, trusts: Callable[[str], bool]) -> None:
        self._trusts = trusts
        self._buffer = bytearray()
        self._skip = 0
        """Bytes of a skipped message that have not arrived yet."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages of trusted senders that `data` completes. Raises ProtocolError."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        while len(self._buffer) >= _FIXED:
            head, size = _sizes(bytes(self._buffer[:_FIXED]))
            if head > MAX_HEADER or size > MAX_MESSAGE:
                self._drop(size)
                continue
            if len(self._buffer) < head:
                return
            if not self._wants(bytes(self._buffer[:head])):
                self._drop(size)
                continue
            if len(self._buffer) < size:
                return
            raw = bytes(self._buffer[:size])
            del self._buffer[:size]
            message = _parsed(raw)
            if message is not None:
                yield message

    def _drop(self, size: int) -> None:
        self._skip = max(0, size - len(self._buffer))
        del self._buffer[:size]

    def _wants(self, head: bytes) -> bool:
        try:
            header, _ = Header.from_buffer(head)
        except Exception as error:  # noqa: BLE001 - an untrusted sender wrote the header
            _log.debug("skipping a message with an unreadable header: %r", error)
            return False
        return self._trusts(header.fields.get(HeaderFields.sender, ""))


def _sizes(fixed: bytes) -> tuple[int, int]:
    """Return the size of the header, and of the whole message."""
    endianness = endian_map.get(fixed[:1])
    if endianness is None:
        raise ProtocolError(f"a message begins with {fixed[:1]!r}")
    fields = int.from_bytes(fixed[12:16], "little" if endianness is Endianness.little else "big")
    return _FIXED + fields + -fields % 8, calc_msg_size(fixed)


def _parsed(raw: bytes) -> Message | None:
    """Return the message. If it is unreadable: an error in place of an answer, otherwise None."""
    try:
        # An answer may refer to descriptors; they were not received.
        return Message.from_buffer(raw, fds=range(-1, -254, -1))
    except Exception as error:  # noqa: BLE001 - the next message may be fine
        _log.warning("a message of D-Bus cannot be read: %r", error)
        header, _ = Header.from_buffer(raw)
        if header.message_type is not MessageType.method_return:
            return None
        header.message_type = MessageType.error
        header.fields[HeaderFields.error_name] = "unreadable"
        return Message(header, ("its answer cannot be read",))


def method_call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: Sequence[Any],
) -> tuple[bytes, list[int]]:
    """Return a method call as bytes, and its descriptors."""
    fields = {
        HeaderFields.path: path,
        HeaderFields.destination: destination,
        HeaderFields.interface: interface,
        HeaderFields.member: member,
    }
    if signature:
        fields[HeaderFields.signature] = signature
    kind, flags = MessageType.method_call.value, MessageFlag.no_auto_start
    header = Header(Endianness.little, kind, flags, 1, 0, serial, fields)
    fds = array.array("i")
    shape = parse_signature(list(f"({signature})"))
    message = Message(header, marshallable(shape, body))
    return message.serialise(serial, fds), list(fds)


def values_of(message: Message) -> list[Any]:
    """Return the values of a message. Raises BusError if it is an error."""
    if message.header.message_type is MessageType.error:
        text = str(message.body[0]) if message.body else ""
        raise BusError(message.header.fields.get(HeaderFields.error_name, ""), text)
    shape = parse_signature(list(f"({message.header.fields.get(HeaderFields.signature, '')})"))
    return [plain(each, value) for each, value in zip(shape.fields, message.body, strict=True)]


def marshallable(shape: Any, value: Any) -> Any:
    """Return a value of this shape in the form that the library takes: tuples for structures.

    A variant is a tuple of its signature and its value; arrays of bytes may be `bytes`.
    """
    if isinstance(shape, Struct):
        fields = zip(shape.fields, value, strict=True)
        return tuple(marshallable(field, each) for field, each in fields)
    if isinstance(shape, Variant):
        signature, inner = value
        return (signature, marshallable(parse_signature(list(signature)), inner))
    if isinstance(shape, Array) and not isinstance(value, bytes):
        if isinstance(shape.elt_type, DictEntry) and isinstance(value, dict):
            value = value.items()
        return [marshallable(shape.elt_type, each) for each in value]
    return value


def plain(shape: Any, value: Any) -> Any:
    """Return a value that the library has parsed, without variants and tuples."""
    if isinstance(shape, Variant):
        signature, inner = value
        return plain(parse_signature(list(signature)), inner)
    if isinstance(shape, Struct):
        return [plain(f, each) for f, each in zip(shape.fields, value, strict=True)]
    if isinstance(shape, Array) and isinstance(value, dict):
        key, item = shape.elt_type.fields
        return {plain(key, k): plain(item, v) for k, v in value.items()}
    if isinstance(shape, Array) and isinstance(value, list):
        return [plain(shape.elt_type, each) for each in value]
    return value
