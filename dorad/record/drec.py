"""Read recordings of dora 1.x: `.drec`, version 2.

The file has a header, records and a footer; a payload is a message of dora's daemons in postcard,
a binary format without names: numbers are varints, texts have their length in front.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from dorad.record.damage import Damage, Missing
from dorad.record.encoding.messages import Decoded, read_batch
from dorad.record.mcap.layout import Attachment, McapError
from dorad.record.mcap.reader import RecordingError
from dorad.record.mcap.scan import open_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO, Self

MAGIC = b"DORAREC\0"
END = b"DORAEND\0"
VERSION = 2
MAX_RECORD = 64 << 20
_HEADER = struct.Struct("<8sHQ16sI")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_WIRE_SIZE = "_wire_size"
"""A parameter that dora adds for itself."""

_STREAM_ID = 16


def is_drec(path: Path) -> bool:
    """Return True if a file begins as a recording of dora 1.x; False also if it cannot be read."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, McapError):
        return False


class DrecMessage(NamedTuple):
    """One message of a `.drec`; time in ns since 1970."""

    time: int
    topic: str
    sequence: int
    payload: bytes

    def decode(self) -> Decoded:
        """Return the array and the metadata. Raises ValueError."""
        try:
            return _decode(self.payload)
        except (IndexError, struct.error, pa.ArrowException, StopIteration, OSError) as error:
            raise ValueError(f"a message of {self.topic} cannot be decoded: {error}") from error


class _Place(NamedTuple):
    """Where the payload of a message lies; time in ns since 1970."""

    time: int
    topic: str
    number: int
    offset: int
    size: int


class DrecReader:
    """One `.drec` file. A context manager."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            RecordingError: the file is not a recording of version 2.
            OSError: it cannot be read.
        """
        self.path = path
        self._file: BinaryIO = path.open("rb")
        try:
            head = self._file.read(_HEADER.size)
            if len(head) < _HEADER.size or not head.startswith(MAGIC):
                raise RecordingError(f"{path} is not a recording")
            _, version, self.start, _, size = _HEADER.unpack(head)
            if version != VERSION:
                raise RecordingError(
                    f"{path} is a recording of version {version}; only version {VERSION} is known"
                )
            if size > MAX_RECORD:
                raise RecordingError(f"{path} is damaged: its dataflow has {size} bytes")
            self._descriptor = self._file.read(size)
        except BaseException:
            self._file.close()
            raise
        self._begin = self._file.tell()
        self.size = os.fstat(self._file.fileno()).st_size
        self.chunk_count = 0
        self.maker = ""
        self.metadata = {"dora.recording": {"version": f"dora 1.x, .drec of version {VERSION}"}}
        self.problems: list[str] = []
        self.damage = Damage()
        self._names: Mapping[str, str] = {}
        self._counts: dict[str, int] | None = None
        self._complete = False
        """Whether the file has its end; known after its messages were read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def status(self) -> str:
        """COMPLETE, or UNFINISHED if the file has no end."""
        self.topics()
        return "COMPLETE" if self._complete else "UNFINISHED"

    def rename(self, names: Mapping[str, str]) -> None:
        """Give topics other names, from now on."""
        self._names = names
        self._counts = None

    def attachments(self) -> Iterator[Attachment]:
        """Yield the dataflow."""
        yield Attachment(self.start, "dataflow.yml", "application/yaml", self._descriptor)

    def types_of(self, topic: str) -> list[str]:
        """Return the type of a topic's first message."""
        first = next((each for each in self._read() if each.topic == topic), None)
        try:
            return [] if first is None else [str(self._message(first).decode().field.type)]
        except ValueError as error:
            self.problems.append(str(error))
            return []

    def attachment(self, name: str) -> bytes | None:
        """Return the dataflow for `dataflow.yml`, None for other names."""
        return self._descriptor if name == "dataflow.yml" else None

    @property
    def end(self) -> int:
        """The time of the last message in ns since 1970; that of the start without messages."""
        return max((message.time for message in self._read()), default=self.start)

    def topics(self) -> dict[str, int]:
        """Return the topics, each with its number of messages."""
        if self._counts is None:
            self._counts = dict(Counter(message.topic for message in self._read()))
        return dict(sorted(self._counts.items()))

    def messages(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        topics: Collection[str] | None = None,
    ) -> Iterator[DrecMessage]:
        """Yield messages by the time of their arrival; up to the last that is complete."""
        places = [
            place
            for place in self._read()
            if (topics is None or place.topic in topics)
            and (start is None or place.time >= start)
            and (end is None or place.time < end)
        ]
        places.sort(key=lambda place: place.time)
        return map(self._message, places)

    def _message(self, place: _Place) -> DrecMessage:
        payload = os.pread(self._file.fileno(), place.size, place.offset)
        return DrecMessage(place.time, place.topic, place.number, payload)

    def _read(self) -> Iterator[_Place]:
        file = self._file
        file.seek(self._begin)
        counts: dict[str, int] = {}
        begin, last = self._begin, self.start
        while head := file.read(4):
            if head == END[:4] and file.read(4) == END[4:]:
                self._complete = True
                return
            try:
                (size,) = _U32.unpack(head)
                data = file.read(min(size, MAX_RECORD))
                if len(data) < size:
                    raise IndexError(f"a record of {size} bytes")
                node, at = _counted(data, 0, _U16)
                output, at = _counted(data, at, _U16)
                (offset,) = _U64.unpack_from(data, at)
                payload, after = _counted(data, at + 8, _U32)
            except (struct.error, IndexError):
                problem = f"the last {self.size - begin} bytes are no complete record"
                if problem not in self.problems:
                    self.problems.append(problem)
                self.damage.add(begin, -1, Missing("", None, last, last))
                return
            topic = f"{node.decode('utf-8', 'replace')}/{output.decode('utf-8', 'replace')}"
            topic = self._names.get(topic, topic)
            number = counts[topic] = counts.get(topic, -1) + 1
            begin, last = file.tell(), self.start + offset
            yield _Place(last, topic, number, begin - size + after - len(payload), len(payload))


def _counted(data: bytes, at: int, kind: struct.Struct) -> tuple[bytes, int]:
    (size,) = kind.unpack_from(data, at)
    begin = at + kind.size
    part = data[begin : begin + size]
    if len(part) != size:
        raise IndexError(f"{size} bytes at byte {begin} of {len(data)}")
    return part, begin + size


class _Postcard:
    """Reads postcard values in order. Raises IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 70:
                raise ValueError("a number is longer than 64 bits")

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def bytes(self, size: int | None = None) -> bytes:
        size = self.varint() if size is None else size
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise IndexError(f"{size} bytes at byte {self._at} of {len(self._data)}")
        self._at += size
        return part

    def text(self) -> str:
        return self.bytes().decode("utf-8", "replace")

    def f64(self) -> float:
        value: float = _F64.unpack(self.bytes(8))[0]
        return value

    def parameter(self) -> Any:
        kind = self.varint()
        match kind:
            case 0:
                return self.varint() != 0
            case 1:
                return self.zigzag()
            case 2:
                return self.text()
            case 3:
                return [self.zigzag() for _ in range(self.varint())]
            case 4:
                return self.f64()
            case 5:
                return [self.f64() for _ in range(self.varint())]
            case 6:
                return [self.text() for _ in range(self.varint())]
            case 7:
                return datetime.fromisoformat(_to_microseconds(self.text()))
        raise ValueError(f"a parameter of the unknown kind {kind}")


def _to_microseconds(text: str) -> str:
    """Return an RFC 3339 time with at most six digits after the point, as Python reads it."""
    head, point, rest = text.partition(".")
    if not point:
        return text
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{head}.{rest[:digits][:6]}{rest[digits:]}"


def _decode(payload: bytes) -> Decoded:
    card = _Postcard(payload)
    if card.varint() != 0:
        raise ValueError("the record is not an output")
    card.bytes()  # the dataflow's UUID
    card.text()  # the node
    card.text()  # the output
    card.varint()  # version of the metadata
    card.varint()  # time stamp
    card.bytes(_STREAM_ID)
    metadata = {}
    for _ in range(card.varint()):
        key = card.text()
        metadata[key] = card.parameter()
    metadata.pop(_WIRE_SIZE, None)
    if card.bytes(1) == b"\0":
        array = pa.nulls(0)
        return Decoded(array, metadata, pa.field("data", array.type))
    batch, _ = read_batch(pa.py_buffer(card.bytes()))
    return Decoded(batch.column(0), metadata, batch.schema.field(0))
