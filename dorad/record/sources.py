"""Open recordings of any kind: MCAP files, and `.drec` files of dora 1.x."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dorad.record import drec
from dorad.record.damage import Missing
from dorad.record.drec import DrecReader
from dorad.record.encoding import extras
from dorad.record.mcap import layout, scan
from dorad.record.mcap.layout import McapError
from dorad.record.mcap.reader import RecordingError, RecordingReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Self

    from dorad.record.damage import Damage
    from dorad.record.encoding.messages import Decoded
    from dorad.record.mcap.layout import Attachment

MAX_DIGITS = 8
"""Of the number of a part."""


class Message(Protocol):
    """A recorded message; time in ns since 1970."""

    @property
    def time(self) -> int:
        """When it was sent."""

    @property
    def topic(self) -> str:
        """Its topic, `node/output`."""

    def decode(self) -> Decoded:
        """Return the array and the metadata. Raises ValueError."""


class Recording(Protocol):
    """A recording that can be replayed. A context manager."""

    path: Path
    size: int
    """Bytes of the file."""
    maker: str
    """The other program that made the file; empty if it was dora."""
    metadata: dict[str, dict[str, str]]
    problems: list[str]
    """What is damaged."""
    damage: Damage
    """What could not be read so far."""

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""

    @property
    def status(self) -> str:
        """COMPLETE, INCOMPLETE, RECOVERED, UNFINISHED if it has no end, FOREIGN, or DAMAGED.

        DAMAGED only if what was read so far has shown it. FOREIGN if another program has completed
        it.
        """

    @property
    def start(self) -> int:
        """The time of the first message in ns since 1970."""

    @property
    def end(self) -> int:
        """The time of the last message in ns since 1970."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Close the file."""

    def attachments(self) -> Iterator[Attachment]:
        """Yield the attachments."""

    def rename(self, names: Mapping[str, str]) -> None:
        """Give topics other names, from now on."""

    def types_of(self, topic: str) -> list[str]:
        """Return the types of a topic's messages."""

    def attachment(self, name: str) -> bytes | None:
        """Return the content of an attachment, None if there is none."""

    def topics(self) -> dict[str, int]:
        """Return the topics, each with its number of messages."""

    def messages(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        topics: Collection[str] | None = None,
    ) -> Iterator[Message]:
        """Yield messages by time; `start` in ns since 1970 is the first, `end` is exclusive."""


def open_recording(path: Path, max_waiting: int | None = None) -> Recording:
    """Open a recording; its first bytes say what it is.

    `max_waiting` bounds the bytes of an MCAP file that wait to be sorted by time.

    Raises:
        RecordingError: it is not a recording, or cannot be read.
    """
    try:
        with os.fdopen(scan.open_file(path), "rb") as file:
            magic = file.read(8)
        if magic == drec.MAGIC:
            return DrecReader(path)
        if magic == layout.MAGIC:
            return RecordingReader(path, max_waiting)
    except McapError as error:
        raise RecordingError(f"{path} is not a recording: {error}") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}") from error
    raise RecordingError(
        f"{path} is not a recording", "a recording is an MCAP file, or a .drec of dora 1.x"
    )


def open_all(paths: Sequence[Path], stack: ExitStack) -> list[Recording]:
    """Open several recordings until `stack` closes; a part between two of them is missing in the
    one after it.

    Raises:
        RecordingError: one of them cannot be read.
    """
    recordings = [stack.enter_context(open_recording(path)) for path in paths]
    note_missing_parts(recordings)
    return recordings


class Part(NamedTuple):
    """A file of a recording that was split; times in ns since 1970, 0 if it has no message."""

    path: Path
    recording: str
    number: int
    start: int
    end: int


def part_of(recording: Recording) -> Part | None:
    """Return what part of a recording a file is; None if it does not say, or was copied."""
    about = recording.metadata.get("dora.recording", {})
    whose, number = about.get("id"), about.get("part", "")
    if not whose or "copied_from" in about:
        return None
    if not (number.isdecimal() and len(number) <= MAX_DIGITS):
        return None
    return Part(recording.path, whose, int(number), recording.start, recording.end)


def missing_parts(parts: Iterable[Part | None]) -> list[tuple[Path, Missing]]:
    """Return what lies between parts of one recording, by the part after it.

    The parts before the first one and after the last one are not missed.
    """
    missing = []
    known = sorted((each for each in parts if each), key=lambda each: (each.recording, each.number))
    for before, after in pairwise(known):
        first, last = before.number + 1, after.number - 1
        if before.recording == after.recording and first <= last:
            lacking = (
                f"part {first} of the recording is not there"
                if first == last
                else f"parts {first} to {last} of the recording are not there"
            )
            begin, end = before.end or before.start or after.start, after.start or before.end
            missing.append((after.path, Missing("", None, min(begin, end), end, lacking)))
    return missing


def note_missing_parts(recordings: Sequence[Recording]) -> None:
    """Note in each recording which parts before it are not among these."""
    lacking = missing_parts(map(part_of, recordings))
    for path, missing in lacking:
        next(each for each in recordings if each.path == path).damage.add_before(missing)


def verify(recording: Recording) -> list[Missing]:
    """Read all of a recording, and return what is missing of it."""
    for _ in recording.messages():
        pass
    for _ in recording.attachments():
        pass
    return recording.damage.missing()


def topics_of(recordings: Sequence[Recording]) -> dict[str, int]:
    """Return the topics of nodes in recordings, each with its number of messages."""
    topics: dict[str, int] = {}
    for each in recordings:
        for topic, count in each.topics().items():
            if count and not extras.is_own(topic):
                topics[topic] = topics.get(topic, 0) + count
    return topics
