"""Recordings of dora 1.x as MCAP files, for what copies messages as they are."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dorad import __version__
from dorad.atomicfile import temporary_folder
from dorad.node import metadata as metadata_codec
from dorad.record.damage import Missing, summary
from dorad.record.drec import DrecReader, is_drec
from dorad.record.encoding.messages import encode_value
from dorad.record.mcap.chunk import CHUNK_BYTES
from dorad.record.mcap.writer import RecordingFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dorad.record.encoding.messages import Decoded, Encoded


class Source(NamedTuple):
    """An MCAP file that has the messages of a recording."""

    path: Path
    missing: list[Missing]
    """What the copy lacks of a recording of dora 1.x."""


@contextmanager
def as_mcap(path: Path, near: Path) -> Iterator[Source]:
    """Yield the recording itself, or a copy in MCAP if it is one of dora 1.x.

    The copy has the same name, in a folder beside `near` meanwhile.

    Raises:
        RecordingError: the recording cannot be read.
        OSError: the copy cannot be written.
    """
    if not is_drec(path):
        yield Source(path, [])
        return
    with temporary_folder(near.absolute().parent, ".converted-") as folder:
        copy = folder / path.with_suffix(".mcap").name
        yield Source(copy, _convert(path, copy))


def _convert(source: Path, target: Path) -> list[Missing]:
    with DrecReader(source) as reader:
        file = RecordingFile(target, f"dorad {__version__}")
        unreadable: list[Missing] = []
        try:
            for item in reader.attachments():
                file.attach(item)
            file.describe("dora.recording", reader.metadata["dora.recording"])
            for message in reader.messages():
                try:
                    encoded = _encoded(message.decode(), message.time)
                except ValueError:
                    unreadable.append(Missing(message.topic, 1, message.time, message.time))
                    continue
                file.add(message.topic, message.sequence, message.time, encoded)
                if file.pending >= CHUNK_BYTES:
                    file.flush()
            missing = summary([*reader.damage.missing(), *unreadable])
            status = "INCOMPLETE" if missing else reader.status
            file.describe("dora.end", {"status": status, "reason": "converted"})
            file.finish()
        finally:
            file.close()
        return missing


def _encoded(decoded: Decoded, stamp: int) -> Encoded:
    """Return a message as the recorder would have written it."""
    meta = metadata_codec.encode(decoded.metadata) if decoded.metadata else b""
    return encode_value(decoded.array, decoded.field, meta, stamp)
