"""Make a copy of a recording that viewers show in full: they know protobuf, but not Arrow.

Numbers become the nearest numbers of protobuf, texts stay texts, each member of a struct becomes a
topic, and everything else becomes JSON. Such a copy is only for viewers: types are lost.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pyarrow as pa

from dorad import __version__
from dorad.control.arrayvalues import to_python_within
from dorad.node import metadata as metadata_codec
from dorad.record import protobuf
from dorad.record.edit import kind_of
from dorad.record.encoding import NUMBERS, Encoded, Kind
from dorad.record.recorder import CHUNK_BYTES
from dorad.record.writer import RecordingFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dorad.record.reader import RecordingReader
    from dorad.record.recorded import Recorded

MAX_TEXTS = 16 << 20
"""Bytes of values that one message may take as Python objects."""

_ARROW = ("arrow", "arrow-ipc")


def needs_copy(reader: RecordingReader) -> bool:
    """Return True if a viewer would show some messages as bytes only."""
    return any(channel.encoding in _ARROW for channel in reader.channels.values())


def write_copy(reader: RecordingReader, target: Path) -> None:
    """Write the copy to a new file.

    Raises:
        ValueError: a message cannot be read.
        OSError: the file cannot be written.
    """
    file = RecordingFile(target, f"dorad {__version__}")
    try:
        for item in reader.attachments():
            file.attach(item)
        for name, values in reader.metadata.items():
            file.describe(name, values)
        for message in reader.messages():
            for topic, encoded in _shown(message):
                file.add(topic, message.sequence, message.time, encoded)
            if file.pending >= CHUNK_BYTES:
                file.flush()
        file.finish()
    finally:
        file.close()


def _shown(message: Recorded) -> Iterator[tuple[str, Encoded]]:
    if message.channel.encoding not in _ARROW:
        kind = kind_of(message.channel, message.schema)
        yield message.topic, Encoded(kind, b"", message.data, b"")
        return
    found = message.decode()
    tail = b""
    if found.metadata:
        tail = protobuf.delimited(protobuf.METADATA_FIELD, metadata_codec.encode(found.metadata))
    for path, shown in viewable(found.array):
        if isinstance(shown, pa.Array):
            name, kind_number = NUMBERS[shown.type]
            body = shown.to_numpy().tobytes()
            head = protobuf.prefix(1, len(body))
        else:
            name, kind_number, head = "Texts", protobuf.STRING, b""
            body = b"".join(protobuf.delimited(1, text.encode()) for text in shown)
        yield message.topic + path, Encoded(_kind(name, kind_number), head, body, tail)


@functools.cache
def _kind(name: str, number: int) -> Kind:
    schema = protobuf.array_schema(name, number)
    return Kind("protobuf", f"dora.{name}", "protobuf", schema, b"", "")


def viewable(array: pa.Array, path: str = "") -> Iterator[tuple[str, pa.Array | list[str]]]:
    """Yield what viewers can show of an array: numbers without nulls, or texts, by path."""
    t, kind = pa.types, array.type
    if isinstance(array, pa.ExtensionArray):
        yield from viewable(array.storage, path)
    elif t.is_dictionary(kind) and not t.is_nested(kind.value_type):
        yield from viewable(array.dictionary_decode(), path)
    elif t.is_struct(kind) and kind.num_fields:
        for field, values in zip(kind, array.flatten(), strict=True):
            yield from viewable(values, f"{path}/{field.name}")
    elif (wider := _wider(array)) is not None:
        yield path, _without_nulls(array.cast(wider, safe=False))
    else:
        yield path, _texts(array)


def _wider(array: pa.Array) -> pa.DataType | None:
    """Return the type that shows an array as numbers, None if none does."""
    t, kind = pa.types, array.type
    if kind in NUMBERS:
        return kind
    if t.is_boolean(kind) or t.is_unsigned_integer(kind):
        return pa.uint32()
    if t.is_integer(kind):
        return pa.int32()
    if t.is_float16(kind):
        return pa.float32()
    return pa.float64() if t.is_decimal(kind) else None


def _without_nulls(array: pa.Array) -> pa.Array:
    """Return numbers without nulls: NaN takes their place."""
    if not array.null_count:
        return array
    return array.cast(pa.float64(), safe=False).fill_null(float("nan"))


def _texts(array: pa.Array) -> list[str]:
    values = to_python_within(array, MAX_TEXTS)
    if values is None:
        return [f"{len(array)} x {array.type}"]
    return [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]
