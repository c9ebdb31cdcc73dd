"""Recordings as files of rerun, by rerun's own converter, which knows protobuf but not Arrow."""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.atomicfile import temporary_folder
from dorad.node import metadata as metadata_codec
from dorad.record.convert import as_mcap
from dorad.record.damage import summary
from dorad.record.edit import kind_of
from dorad.record.encoding.messages import Encoded, encode_value
from dorad.record.export.topictables import MAX_WAITING, Exported, LeftOut
from dorad.record.mcap.chunk import CHUNK_BYTES
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.mcap.writer import RecordingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from dorad.record.mcap.reader import Recorded

_log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
"""Bytes of a recording that rerun converts at once."""
MAX_CONVERTED = 64 << 20
"""Bytes of the largest message that rerun gets: it takes six times as much memory."""

_ARROW = ("arrow", "arrow-ipc")
"""Encodings of older recordings."""


def to_rerun(
    source: Path,
    target: Path,
    topics: Collection[str] | None,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> Exported:
    """Convert a recording to a file of rerun, with rerun's own converter.

    It keeps what it converts in memory, several times over: it gets small parts, one after another.

    Raises:
        RecordingError: rerun is not installed or refuses a part, or there is nothing to convert.
        OSError: a file cannot be written.
    """
    beside = Path(sys.executable).with_name("rerun")
    program = str(beside) if beside.exists() else shutil.which("rerun")
    if program is None:
        raise RecordingError(
            "rerun is not installed", "pip install rerun-sdk; rerun also opens MCAP files directly"
        )
    left_out: dict[str, LeftOut] = {}

    def leave_out(message: Recorded, reason: str) -> None:
        before = left_out.get(message.topic, LeftOut(message.topic, "", 0, reason))
        left_out[message.topic] = before._replace(messages=before.messages + 1)

    def convertible(messages: Iterator[Recorded]) -> Iterator[Recorded]:
        for message in messages:
            progress(1)
            if len(message.data) <= MAX_CONVERTED:
                yield message
            else:
                leave_out(message, f"it has more than {MAX_CONVERTED >> 20} MiB")

    with ExitStack() as stack:
        source, missing = stack.enter_context(as_mcap(source, target))
        reader = stack.enter_context(RecordingReader(source, MAX_WAITING))
        part = (
            stack.enter_context(temporary_folder(target.absolute().parent, ".rrd-")) / "part.mcap"
        )
        messages = convertible(reader.messages(topics=topics))
        count = 0
        # Several files of one recording are one file, one behind the other.
        names = ("--application-id", source.stem, "--recording-id", str(uuid.uuid4()))
        with target.open("wb") as file:
            while written := write_copy(reader, part, messages, PART_BYTES, leave_out):
                count += written
                converted = part.with_suffix(".rrd")
                _convert((program, "mcap", "convert", str(part), "-o", str(converted), *names))
                with converted.open("rb") as each:
                    shutil.copyfileobj(each, file)
                converted.unlink()
                part.unlink()
        if not count:
            reasons = [str(each) for each in left_out.values()] or ["it has no messages"]
            raise RecordingError(f"there is nothing to export: {'; '.join(reasons[:3])}")
        missing = summary([*missing, *reader.damage.missing()])
        return Exported([(target, count)], sorted(left_out.values()), missing)


def _convert(command: Sequence[str]) -> None:
    """Run rerun's converter. Raises RecordingError if it fails."""
    _log.debug("%s", shlex.join(command))
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RecordingError(f"rerun cannot convert the recording: {' '.join(last)}")


def write_copy(
    reader: RecordingReader,
    target: Path,
    messages: Iterator[Recorded],
    limit: int,
    leave_out: Callable[[Recorded, str], None],
) -> int:
    """Write the next messages to a new file, until they have `limit` bytes; return their number.

    Those in Arrow become protobuf. Those of a damaged file that can be read are in the copy.

    Raises:
        OSError: the file cannot be written.
    """
    file = RecordingFile(target, f"dorad {__version__}")
    count = 0
    try:
        for item in reader.attachments():
            file.attach(item)
        for name, values in reader.metadata.items():
            file.describe(name, values)
        end = file.offset + limit
        while file.offset + file.pending < end and (message := next(messages, None)) is not None:
            try:
                encoded = _encoded(message)
            except ValueError as error:
                leave_out(message, str(error))
                continue
            file.add(message.topic, message.sequence, message.time, encoded)
            count += 1
            if file.pending >= CHUNK_BYTES:
                file.flush()
        file.finish()
    finally:
        file.close()
    return count


def _encoded(message: Recorded) -> Encoded:
    if message.channel.encoding not in _ARROW:
        return Encoded(kind_of(message.channel, message.schema), b"", message.data, b"")
    content = message.decode()
    meta = metadata_codec.encode(content.metadata) if content.metadata else b""
    return encode_value(content.array, content.field, meta, message.time)
