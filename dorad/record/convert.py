"""Recordings of dora 1.x as MCAP files, for what copies messages as they are."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.atomicfile import temporary_folder
from dorad.node import metadata as metadata_codec
from dorad.record import drec, scan
from dorad.record.drec import DrecReader
from dorad.record.encoding import encode_array, encode_raw
from dorad.record.mcap import McapError
from dorad.record.recorder import CHUNK_BYTES
from dorad.record.writer import RecordingFile
from dorad.shm.arrow import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dorad.record.encoding import Decoded, Encoded


@contextmanager
def as_mcap(path: Path, near: Path) -> Iterator[Path]:
    """Yield the path itself, or that of a copy in MCAP if it is a recording of dora 1.x.

    The copy has the same name, in a folder beside `near` meanwhile.

    Raises:
        RecordingError: the recording cannot be read.
        OSError: the copy cannot be written.
    """
    if not _is_drec(path):
        yield path
        return
    with temporary_folder(near.absolute().parent, ".converted-") as folder:
        copy = folder / path.with_suffix(".mcap").name
        _convert(path, copy)
        yield copy


def _is_drec(path: Path) -> bool:
    try:
        with os.fdopen(scan.open_file(path), "rb") as file:
            return file.read(len(drec.MAGIC)) == drec.MAGIC
    except (OSError, McapError):
        return False  # the reader of MCAP files says why it cannot be read


def _convert(source: Path, target: Path) -> None:
    with DrecReader(source) as reader:
        file = RecordingFile(target, f"dorad {__version__}")
        try:
            for item in reader.attachments():
                file.attach(item)
            file.describe("dora.recording", reader.metadata["dora.recording"])
            for message in reader.messages():
                try:
                    found = _encoded(message.decode(), message.time)
                except ValueError:
                    reader.problems.append(f"message {message.sequence} of {message.topic}")
                    continue
                file.add(message.topic, message.sequence, message.time, found)
                if file.pending >= CHUNK_BYTES:
                    file.flush()
            status = "INCOMPLETE" if reader.problems else reader.status
            file.describe("dora.end", {"status": status, "reason": "converted"})
            file.finish()
        finally:
            file.close()


def _encoded(found: Decoded, stamp: int) -> Encoded:
    """Return a message as the recorder would have written it."""
    meta = metadata_codec.encode(found.metadata) if found.metadata else b""
    code, length, nulls, size, parts = encode(found.array)
    payload = bytearray(size)
    for at, data in parts:
        view = memoryview(data)
        if view.nbytes:
            payload[at : at + view.nbytes] = view.cast("B")
    if found.field.metadata:
        return encode_array(found.array, found.field, meta)
    return encode_raw(code, length, nulls, bytes(payload), meta, stamp)
