"""Incidents: what a black box has recorded around a moment, kept until it is removed.

An incident is a folder of links to segments. A link costs no space: incidents that overlap share
their segments, and a segment stays on the disk until the ring and all incidents have dropped it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import stat
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import msgspec

from dorad.atomicfile import atomic_file, sync_folder
from dorad.problems import ProblemError
from dorad.record.box.ring import RING, SEGMENT_S, gone_between, overlapping, segments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dorad.record.box.ring import Segment

MARKS, INCIDENTS = "marks", "incidents"
MAX_MARKS = 1000
"""Maximum number of requests, and of incidents: a node that marks in a loop must not use up the
disk's inodes."""

INFO = "incident.json"
"""The file of an incident's folder that is written last: its `Mark`."""

MAX_ENTRIES = 10_000
"""Entries of a folder that are read."""

MAX_INFO = 1 << 16
"""Bytes of a mark."""

MAX_NOTE = 1000
"""Characters of a note that are kept."""

_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")

_log = logging.getLogger(__name__)


MAX_S = 1e9
"""Most seconds before or after a moment, far more than any box keeps."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_S)]


class Mark(msgspec.Struct, frozen=True):
    """A request to keep what was recorded around a moment; `time_ns` since 1970."""

    time_ns: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    before_s: Seconds = 60.0
    after_s: Seconds = 20.0
    note: str = ""
    source: str = ""
    """Who asked: `command`, `node NAME`, or what happened."""

    @property
    def start_ns(self) -> int:
        """The first moment to keep."""
        return self.time_ns - int(self.before_s * 1e9)

    @property
    def end_ns(self) -> int:
        """The last moment to keep."""
        return self.time_ns + int(self.after_s * 1e9)


class IncidentError(ProblemError):
    """An incident that cannot be found, or made."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


def request(folder: Path, mark: Mark) -> str:
    """Ask the recorder of a black box to keep an incident; return its id.

    Raises:
        IncidentError: there is no black box, or it has too many requests.
        OSError: the folder cannot be written.
    """
    marks = folder / MARKS
    if not marks.is_dir():
        raise IncidentError(
            f"{folder} is not a black box",
            "start one with `dora record ring`, or with `record: {keep: 60s}` in the dataflow",
        )
    if sum(1 for _ in marks.glob("[!.]*")) >= MAX_MARKS:
        raise IncidentError(f"{MAX_MARKS} requests wait in {marks}", "is the recorder running?")
    name = new_id(mark)
    with atomic_file(marks / f"{name}.json", mode=0o666, durable=False) as file:
        file.write(msgspec.json.encode(mark))
    return name


def new_id(mark: Mark) -> str:
    """Return the id of a new incident: its time and two random bytes."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.localtime(mark.time_ns / 1e9))
    return f"{moment}-{secrets.token_hex(2)}"


def take_requests(folder: Path) -> Iterator[tuple[str, Mark]]:
    """Yield the requests that wait, and remove them. One that cannot be read is dropped."""
    for path in sorted((folder / MARKS).glob("[!.]*.json")):
        try:
            if _NAME.fullmatch(path.stem):
                yield path.stem, _read_mark(path)
        except (ValueError, OSError) as error:
            _log.warning("the request %s cannot be read: %s", path.name, error)
        path.unlink(missing_ok=True)


def create(folder: Path, name: str, mark: Mark) -> Path:
    """Make an incident of what the ring holds; return its folder. Later segments are linked to it
    by `link_new`.

    Raises:
        IncidentError: there are too many incidents.
        OSError: the folder cannot be written.
    """
    above = folder / INCIDENTS
    above.mkdir(exist_ok=True)
    if sum(1 for _ in above.iterdir()) >= MAX_MARKS:
        raise IncidentError(
            f"there are {MAX_MARKS} incidents", "remove some with `dora record incidents --remove`"
        )
    own = above / name
    own.mkdir(exist_ok=True)
    _link(segments(folder / RING), own, mark)
    # Last: a command that waits for the incident finds it complete.
    with atomic_file(own / INFO, mode=0o666) as file:
        file.write(msgspec.json.encode(mark))
    sync_folder(above)
    return own


def link_new(folder: Path, now_ns: int) -> None:
    """Link new segments of the ring to the incidents whose time is not over."""
    known = segments(folder / RING)
    for own, mark in incidents(folder):
        if is_open(mark, now_ns):
            _link(known, own, mark)


def is_open(mark: Mark, now_ns: int) -> bool:
    """Return True while segments may still be added to an incident."""
    # One more segment's time: its last messages may be in a segment that was linked late.
    return now_ns <= mark.end_ns + int(2 * SEGMENT_S * 1e9)


def _link(known: Sequence[Segment], own: Path, mark: Mark) -> None:
    for each in overlapping(known, mark.start_ns, mark.end_ns):
        target = own / each.path.name
        if not target.exists():
            try:
                os.link(each.path, target)
            except FileNotFoundError:
                _log.debug("%s was removed meanwhile", each.path)


def incidents(folder: Path) -> list[tuple[Path, Mark]]:
    """Return the incidents of a black box, oldest first."""
    marked, damaged = [], []
    try:
        entries = list(islice(os.scandir(folder / INCIDENTS), MAX_ENTRIES))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for entry in entries:
        try:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                own = folder / INCIDENTS / entry.name
                marked.append((own, _read_mark(own / INFO)))
        except FileNotFoundError:
            _log.debug("%s is not complete yet", entry.path)
        except (ValueError, OSError) as error:
            damaged.append(f"{entry.path}: {error}")
    if damaged:
        _log.warning("%d incidents cannot be read, for instance %s", len(damaged), damaged[0])
    return sorted(marked, key=lambda each: (each[1].time_ns, each[0]))


def _read_mark(path: Path) -> Mark:
    """Read a mark. The daemon does so in the folders of nodes, where the name may be a pipe's.

    Raises:
        ValueError: it is not a mark.
        OSError: it cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a file")
        content = os.read(descriptor, MAX_INFO + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_INFO:
        raise ValueError("it is too large")
    try:
        return msgspec.json.decode(content, type=Mark)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def incident(folder: Path, name: str) -> tuple[Path, Mark]:
    """Return one incident. Raises IncidentError if there is no incident of that name."""
    known = incidents(folder)
    for own, mark in known:
        if own.name == name:
            return own, mark
    names = ", ".join(own.name for own, _ in known[-5:]) or "none"
    raise IncidentError(f"there is no incident {name!r}", f"there are: {names}")


def remove(folder: Path, name: str) -> None:
    """Remove an incident; segments that nothing else links leave the disk.

    Raises:
        IncidentError: there is no incident of that name.
        OSError: it cannot be removed.
    """
    own, _ = incident(folder, name)
    discard(own)


def discard(own: Path) -> None:
    """Remove the folder of an incident. Raises OSError.

    What lists it goes last: after a crash the rest can still be removed.
    """
    for path in own.glob("*.mcap"):
        path.unlink(missing_ok=True)
    shutil.rmtree(own)


def surplus(
    known: Sequence[tuple[Path, Mark]], keep_s: float | None, max_bytes: int | None, now_ns: int
) -> list[Path]:
    """Return the incidents to remove, the oldest first: old ones, and those beyond `max_bytes`.

    Segments that several incidents share count once. An incident whose time is not over stays.
    """
    files = {own: files_of(own) for own, _ in known} if max_bytes is not None else {}
    over = []
    left = [each for each in known if not is_open(each[1], now_ns)]
    remaining = [own for own, _ in known]
    for own, mark in left:
        old = keep_s is not None and mark.end_ns < now_ns - int(keep_s * 1e9)
        total = sum(dict(file for each in remaining for file in files.get(each, ())).values())
        if not old and (max_bytes is None or total <= max_bytes):
            break
        over.append(own)
        remaining.remove(own)
    return over


def segments_gone(own: Path) -> int:
    """Return how many segments are gone between the first and the last one of an incident."""
    return gone_between(segments(own, MAX_ENTRIES))


def files_of(own: Path) -> list[tuple[int, int]]:
    """Return the inode and the bytes of each segment of an incident.

    Incidents may share segments.
    """
    files = []
    try:
        for entry in islice(os.scandir(own), MAX_ENTRIES):
            if entry.name.endswith(".mcap"):
                status = entry.stat(follow_symlinks=False)
                files.append((status.st_ino, status.st_size))
    except FileNotFoundError:
        _log.debug("%s was removed meanwhile", own)
    return files
