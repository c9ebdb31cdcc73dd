"""Cut recordings, and merge several into one. Messages are copied as they are."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.atomicfile import sync_folder
from dorad.record.convert import as_mcap
from dorad.record.encoding import Encoded, Kind
from dorad.record.mcap import McapError
from dorad.record.reader import RecordingError, RecordingReader, merged
from dorad.record.recorder import CHUNK_BYTES
from dorad.record.writer import RecordingFile

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from dorad.record.mcap import Channel, Schema


def merge(
    sources: Sequence[Path],
    target: Path,
    *,
    start: int | None = None,
    end: int | None = None,
    topics: Collection[str] | None = None,
    compression: str = "auto",
) -> int:
    """Write the messages of recordings, in their order, to a new one; return their number.

    `start` and `end` are in ns since 1970; `end` is exclusive. The attachments are those of the
    first file. Recordings of dora 1.x are converted.

    Raises:
        RecordingError: a source cannot be read, or the target cannot be written.
    """
    if not sources:
        raise RecordingError("there is nothing to write: no recording was found")
    with ExitStack() as stack:
        try:
            found = [stack.enter_context(as_mcap(path, target)) for path in sources]
        except OSError as error:
            raise RecordingError(f"cannot write beside {target}: {error.strerror}") from error
        readers = [stack.enter_context(RecordingReader(path)) for path in found]
        damaged = [reader.path for reader in readers if not reader.indexed]
        try:
            file = RecordingFile(target, f"dorad {__version__}", compression=compression)
            try:
                count = _copy(readers, file, start, end, topics)
                file.finish()
            finally:
                file.close()
            sync_folder(target.absolute().parent)
        except FileExistsError:
            raise RecordingError(f"{target} exists already", "name another file") from None
        except OSError as error:
            raise RecordingError(f"cannot write {target}: {error.strerror}") from error
        except McapError as error:
            raise RecordingError(f"cannot write {target}: {error}") from error
        damaged += [reader.path for reader in readers if reader.problems and reader.indexed]
    if damaged and not count:
        raise RecordingError(f"{damaged[0]} holds no message that can be read")
    return count


def _copy(
    readers: Sequence[RecordingReader],
    file: RecordingFile,
    start: int | None,
    end: int | None,
    topics: Collection[str] | None,
) -> int:
    first = readers[0]
    names = ",".join(reader.path.name for reader in readers)
    file.describe(
        "dora.recording", {**first.metadata.get("dora.recording", {}), "copied_from": names}
    )
    for item in first.attachments():
        file.attach(item)
    kinds: dict[tuple[int, str, Schema], Kind] = {}
    count = 0
    for message in merged(readers, start=start, end=end, topics=topics):
        channel = message.channel
        key = (id(channel), channel.topic, message.schema)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = kind_of(channel, message.schema)
        file.add(
            message.topic, message.sequence, message.time, Encoded(kind, b"", message.data, b"")
        )
        count += 1
        if file.pending >= CHUNK_BYTES:
            file.flush()
    statuses = {reader.status for reader in readers}
    damaged = any(reader.problems for reader in readers)
    complete = statuses == {"COMPLETE"} and not damaged
    file.describe("dora.end", {**_dropped(readers), "status": _status(complete=complete)})
    return count


def _status(*, complete: bool) -> str:
    return "COMPLETE" if complete else "INCOMPLETE"


def _dropped(readers: Sequence[RecordingReader]) -> Mapping[str, str]:
    found: dict[str, str] = {"reason": "copied"}
    for reader in readers:
        for key, value in reader.metadata.get("dora.end", {}).items():
            if key.startswith("dropped"):
                found[key] = value
    return found


def kind_of(channel: Channel, schema: Schema) -> Kind:
    """Return what messages share that are copied as they are."""
    import base64

    from dorad.record.encoding import ARROW_TYPE, TYPE_TEXT

    try:
        arrow = base64.b64decode(channel.metadata.get(ARROW_TYPE, ""))
    except ValueError:
        arrow = b""
    return Kind(
        channel.encoding,
        schema.name,
        schema.encoding,
        schema.data,
        arrow,
        channel.metadata.get(TYPE_TEXT, ""),
    )
