"""The frames that two link processes exchange, and the checks of every field of them.

    START    where the messages of a sender begin that is new to the receiver
    MESSAGE  the start of a message: what its ring entry says, its metadata, and the first bytes of
             its payload, or all
    PART     more bytes of the payload of the message that was started last on the channel
    EVENT    the channel has closed or its source has failed; has a sequence number like a message
    ACK      what the receiver has taken, which gives the sender credit

A sample of Zenoh holds one frame, or one message after the other: a message says where it ends.

A frame belongs to one opening of a channel (see `peer`). Frames of earlier openings may still
arrive, and are recognised by `opening` and `incarnation`.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

VERSION = 4
"""Version of these frames and of `hello`."""

OLDEST = 4
"""The oldest version that this one speaks, too. Two link processes exchange data if there is a
version that both speak."""

MAX_FRAGMENT = 1 << 20
"""Bytes of payload that one frame carries at most."""

MAX_BATCH = 1 << 16
"""No message follows another one in a sample that has this many bytes of payload already."""

MAX_METADATA = 1 << 20
MAX_TEXT = 4096
"""Bytes of the text of an event."""

MAX_NUMBER = (1 << 63) - 1

_PREFIX = struct.Struct("<BBHIQ")
_MESSAGE = struct.Struct("<BBHIQQQQQQQIBB")
"""The prefix and what a message adds to it, in one: most frames are messages."""
_PART = struct.Struct("<QQ")
_EVENT = struct.Struct("<QB")
_ACK = struct.Struct("<QQ")
_START = struct.Struct("<QQQ")

OVERHEAD = _MESSAGE.size
"""Bytes that the largest header has."""

MAX_FRAME = MAX_BATCH + OVERHEAD + MAX_METADATA + MAX_FRAGMENT
"""Bytes of the largest sample."""

make = tuple.__new__
"""Makes a named tuple without a call of Python, which counts where each message passes."""

_KIND_MESSAGE, _KIND_PART, _KIND_EVENT, _KIND_ACK, _KIND_START = 1, 2, 3, 4, 5
_MESSAGE_BYTE = bytes((_KIND_MESSAGE,))


class FrameError(ValueError):
    """The bytes are not a frame of this version."""


class Opening(NamedTuple):
    """The channel of a frame, and the opening of it.

    `channel` and `opening` are numbers that the receiver of the channel has chosen. `incarnation`
    is that of the process that sends the frame.
    """

    channel: int
    opening: int
    incarnation: int


class Content(NamedTuple):
    """The fields of a message's ring entry, except its place; see `dorad.shm.layout`."""

    stamp: int
    code: int
    length: int
    nulls: int
    size: int
    flags: int


class Numbering(NamedTuple):
    """How a sender numbers its messages; see `dorad.link.numbering`."""

    id: int
    begin: int
    """The number of the first message that a new receiver needs."""


class Message(NamedTuple):
    """The start of a message; `payload` is all of it, or its first bytes.

    `sequence` counts what this process of the sender has sent on the channel, events too. `number`
    counts the messages of all its processes.
    """

    opening: Opening
    sequence: int
    number: int
    content: Content
    metadata: bytes
    payload: memoryview


class Part(NamedTuple):
    """More of a message, from byte `offset` of its payload."""

    opening: Opening
    sequence: int
    offset: int
    payload: memoryview


class EventKind(IntEnum):
    """The kinds of events of a channel's source."""

    CLOSED = 1
    FAILED = 2
    RESTARTED = 3


class Event(NamedTuple):
    """Something that has happened to the source of a channel; in order with its messages."""

    opening: Opening
    sequence: int
    kind: EventKind
    text: str


class Ack(NamedTuple):
    """Everything before the sequence number `next` has been handled, and `received` bytes."""

    opening: Opening
    next: int
    received: int


class Start(NamedTuple):
    """The first frame of an opening, if the receiver does not know the sender yet."""

    opening: Opening
    first: int
    """The sequence number of the first message or event."""
    numbering: Numbering


Frame = Start | Message | Part | Event | Ack


def message_head(
    opening: Opening, sequence: int, number: int, content: Content, metadata: bytes
) -> bytes:
    """Return the header and metadata of a message; bytes of its payload follow.

    Raises:
        FrameError: the metadata are too long.
    """
    if len(metadata) > MAX_METADATA:
        raise FrameError(f"{len(metadata)} bytes of metadata; {MAX_METADATA} are allowed")
    stamp, code, length, nulls, size, flags = content
    head = _MESSAGE.pack(
        *(_KIND_MESSAGE, VERSION, *opening),
        *(sequence, number, stamp, length, nulls, size, len(metadata), code, flags),
    )
    return head + metadata


def message_prefix(opening: Opening) -> bytes:
    """Return what all messages of an opening begin with."""
    return _prefix(_KIND_MESSAGE, opening)


def channel_of(data: bytes) -> int:
    """Return the channel of a frame, as it says."""
    return int.from_bytes(data[2:4], "little")


def whole_message(data: bytes) -> tuple[int, int, Content, bytes, int] | None:
    """Return what a sample holds that begins as a message of this version, if it is a whole one.

    That is its sequence number, its number, content and metadata, and where its payload begins.
    """
    _, _, _, _, _, *fields = _MESSAGE.unpack_from(data)
    sequence, number, stamp, length, nulls, size, meta_size, code, flags = fields
    begin = OVERHEAD + meta_size
    if (
        begin + size != len(data)
        or size > MAX_FRAGMENT
        or meta_size > MAX_METADATA
        or sequence > MAX_NUMBER
        or number > MAX_NUMBER
    ):
        return None
    content = make(Content, (stamp, code, length, nulls, size, flags))
    return sequence, number, content, data[OVERHEAD:begin], begin


def part_head(opening: Opening, sequence: int, offset: int) -> bytes:
    """Return the header of a part; bytes of the payload follow."""
    return _prefix(_KIND_PART, opening) + _PART.pack(sequence, offset)


def encode_event(event: Event) -> bytes:
    """Return an event as bytes; a long text is cut."""
    text = event.text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore").encode()
    fields = _EVENT.pack(event.sequence, event.kind)
    return _prefix(_KIND_EVENT, event.opening) + fields + text


def encode_ack(ack: Ack) -> bytes:
    """Return an acknowledgement as bytes."""
    return _prefix(_KIND_ACK, ack.opening) + _ACK.pack(ack.next, ack.received)


def encode_start(start: Start) -> bytes:
    """Return a start as bytes."""
    return _prefix(_KIND_START, start.opening) + _START.pack(start.first, *start.numbering)


def decode(data: bytes) -> list[Frame]:
    """Return the frames that `data` holds; their payload stays in that memory.

    Raises:
        FrameError: a field has a value that no frame can have.
    """
    try:
        if data[:1] != _MESSAGE_BYTE:
            opening, kind = _decode_prefix(data)
            return [_decode_single(kind, opening, data)]
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            message, at = _decode_message(data, at)
            frames.append(message)
    except struct.error as error:
        raise FrameError(f"a frame of {len(data)} bytes: {error}") from error
    return frames


def _decode_prefix(data: bytes) -> tuple[Opening, int]:
    kind, version, channel, opening_number, incarnation = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise _other_version(version)
    return Opening(channel, opening_number, incarnation), kind


def _other_version(version: int) -> FrameError:
    return FrameError(f"a frame of version {version}; this is version {VERSION}")


def _decode_single(kind: int, opening: Opening, data: bytes) -> Frame:
    if kind == _KIND_PART:
        return _decode_part(opening, data)
    if kind == _KIND_EVENT:
        return _decode_event(opening, data)
    if kind == _KIND_ACK:
        next_sequence, received = _ACK.unpack(data[_PREFIX.size :])
        return Ack(opening, _count(next_sequence), _count(received))
    if kind == _KIND_START:
        first, id_, begin = map(_count, _START.unpack(data[_PREFIX.size :]))
        if not id_:
            raise FrameError("a start whose numbering has no id")
        return Start(opening, first, Numbering(id_, begin))
    raise FrameError(f"a frame of the unknown kind {kind}")


def _decode_message(data: bytes, at: int) -> tuple[Message, int]:
    """Return the message that begins at `at`, and where it ends."""
    if data[at] != _KIND_MESSAGE:
        raise FrameError("only messages may follow a message")
    _, version, channel, opened, incarnation, *fields = _MESSAGE.unpack_from(data, at)
    if version != VERSION:
        raise _other_version(version)
    sequence, number, stamp, length, nulls, size, meta_size, code, flags = fields
    at += OVERHEAD
    begin = at + meta_size
    end = begin + (size if size < MAX_FRAGMENT else MAX_FRAGMENT)
    if meta_size > MAX_METADATA or begin > len(data):
        raise FrameError(f"{meta_size} bytes of metadata in a frame of {len(data)}")
    if end > len(data):
        raise FrameError(f"the first {len(data) - begin} bytes of a payload of {size}")
    # A node wrote the others; those that receive the message check them.
    if sequence > MAX_NUMBER or number > MAX_NUMBER or size > MAX_NUMBER:
        raise _too_large(max(sequence, number, size))
    content = make(Content, (stamp, code, length, nulls, size, flags))
    opening = make(Opening, (channel, opened, incarnation))
    payload = memoryview(data)[begin:end]
    message = (opening, sequence, number, content, data[at:begin], payload)
    return make(Message, message), end


def _decode_part(opening: Opening, data: bytes) -> Part:
    sequence, offset = _PART.unpack_from(data, _PREFIX.size)
    payload = memoryview(data)[_PREFIX.size + _PART.size :]
    if not 0 < len(payload) <= MAX_FRAGMENT:
        raise FrameError(f"a part of {len(payload)} bytes")
    return Part(opening, _count(sequence), _count(offset), payload)


def _decode_event(opening: Opening, data: bytes) -> Event:
    sequence, kind = _EVENT.unpack_from(data, _PREFIX.size)
    text = data[_PREFIX.size + _EVENT.size :]
    if len(text) > MAX_TEXT:
        raise FrameError(f"an event with {len(text)} bytes of text")
    try:
        return Event(opening, _count(sequence), EventKind(kind), text.decode())
    except ValueError as error:  # also UnicodeDecodeError
        raise FrameError(f"an event that cannot be read: {error}") from error


def _count(value: int) -> int:
    """Return a number that may be counted on from. Raises FrameError if it is out of range."""
    if value > MAX_NUMBER:
        raise _too_large(value)
    return value


def _too_large(value: int) -> FrameError:
    return FrameError(f"the number {value} is too large")


def _prefix(kind: int, opening: Opening) -> bytes:
    return _PREFIX.pack(kind, VERSION, *opening)
