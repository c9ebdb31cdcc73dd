"""Cut recordings, and merge several into one. Messages are copied as they are."""

from __future__ import annotations

import base64
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from dorad import __version__
from dorad.atomicfile import new_name
from dorad.record.convert import as_mcap
from dorad.record.damage import dropped_in, summary
from dorad.record.encoding.messages import ARROW_TYPE, TYPE_TEXT, Encoded, Kind
from dorad.record.mcap import layout
from dorad.record.mcap.chunk import CHUNK_BYTES
from dorad.record.mcap.layout import McapError
from dorad.record.mcap.reader import RecordingError, RecordingReader, merged
from dorad.record.mcap.writer import RecordingFile
from dorad.record.sources import note_missing_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from dorad.record.damage import Missing
    from dorad.record.mcap.layout import Channel, Schema


class Copied(NamedTuple):
    """The result of a cut or a merge."""

    messages: int
    missing: list[tuple[Path, list[Missing]]]
    """What could not be read, by source; only of sources that lack something."""


def merge(
    sources: Sequence[Path],
    target: Path,
    *,
    start: int | None = None,
    end: int | None = None,
    topics: Collection[str] | None = None,
    compression: str = "auto",
) -> Copied:
    """Write the messages of recordings, in their order, to a new one.

    `start` and `end` are in ns since 1970; `end` is exclusive. The attachments are those of the
    first file. Recordings of dora 1.x are converted; those of ROS 2 alone stay ones of ROS 2.
    A part of a recording that lies between two sources, and is not one, is missing.

    Raises:
        RecordingError: a source cannot be read, or the target cannot be written.
    """
    if not sources:
        raise RecordingError("there is nothing to write: no recording was found")
    if target.exists():
        raise RecordingError(f"{target} exists already", "name another file")
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(as_mcap(path, target)) for path in sources]
        except OSError as error:
            raise RecordingError(f"cannot write beside {target}: {error.strerror}") from error
        readers = [stack.enter_context(RecordingReader(each.path)) for each in opened]
        note_missing_parts(readers)
        try:
            with new_name(target) as path:
                profiles = {reader.profile for reader in readers}
                file = RecordingFile(
                    path,
                    f"dorad {__version__}",
                    compression=compression,
                    profile=layout.ROS2 if profiles == {layout.ROS2} else layout.PROFILE,
                )
                try:
                    count = _copy(readers, file, start, end, topics)
                    file.finish()
                finally:
                    file.close()
        except OSError as error:
            raise RecordingError(f"cannot write {target}: {error.strerror}") from error
        except McapError as error:
            raise RecordingError(f"cannot write {target}: {error}") from error
    missing = [
        (path, summary([*each.missing, *reader.damage.missing()]))
        for path, each, reader in zip(sources, opened, readers, strict=True)
    ]
    return Copied(count, [each for each in missing if each[1]])


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
    whole = ("COMPLETE", "FOREIGN")
    complete = all(reader.status in whole and not reader.problems for reader in readers)
    status = "COMPLETE" if complete else "INCOMPLETE"
    file.describe("dora.end", {**_dropped(readers, topics), "status": status, "reason": "copied"})
    return count


def _dropped(
    readers: Sequence[RecordingReader], topics: Collection[str] | None
) -> Mapping[str, str]:
    """Return how many messages of these topics the recorders have dropped together.

    The parts of one recording count from its beginning.
    """
    of_recordings: dict[str, Counter[str]] = {}
    for number, reader in enumerate(readers):
        recording = reader.metadata.get("dora.recording", {}).get("id", str(number))
        of_recordings[recording] = of_recordings.get(recording, Counter()) | Counter(
            dropped_in(reader.metadata)
        )
    dropped: Counter[str] = sum(of_recordings.values(), Counter())
    chosen = {topic: n for topic, n in dropped.items() if topics is None or topic in topics}
    by_topic = {f"dropped.{topic}": str(count) for topic, count in chosen.items()}
    return {"dropped": str(sum(chosen.values())), **by_topic}


def kind_of(channel: Channel, schema: Schema) -> Kind:
    """Return what messages share that are copied as they are."""
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
        tuple(
            (name, text)
            for name, text in channel.metadata.items()
            if name not in (ARROW_TYPE, TYPE_TEXT)
        ),
    )
