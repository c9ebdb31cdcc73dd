"""The black box: a folder of short recordings of the last minutes, and incidents kept from it.

    FOLDER/ring/        segments, each a complete recording; old ones are removed
    FOLDER/marks/       requests to keep an incident, one JSON file each
    FOLDER/incidents/   a folder for each incident: incident.json, and links to its segments

A link costs no space: incidents that overlap share their segments, and a segment stays on the disk
until the ring and all incidents have dropped it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dorad.problems import ProblemError
from dorad.record.writer import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RING, MARKS, INCIDENTS = "ring", "marks", "incidents"
SEGMENT_S = 3.0
"""Seconds of one segment."""

MAX_MARKS = 1000
"""Requests, and incidents, beyond which no more are made: a node that marks in a loop must not fill
the disk's table of files."""

_SEGMENT = re.compile(r"(\d{19})_\d+\.mcap")
_INFO = "incident.json"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")

_log = logging.getLogger(__name__)


class Mark(msgspec.Struct, frozen=True):
    """A request to keep what was recorded around a moment; `time_ns` since 1970."""

    time_ns: int
    before_s: float = 60.0
    after_s: float = 20.0
    note: str = ""
    source: str = ""
    """Who asked: `command`, `node NAME`, or what happened."""

    @property
    def start_ns(self) -> int:
        """Return the first moment to keep."""
        return self.time_ns - int(self.before_s * 1e9)

    @property
    def end_ns(self) -> int:
        """Return the last moment to keep."""
        return self.time_ns + int(self.after_s * 1e9)


class Segment(NamedTuple):
    """One segment; it begins at `start_ns`."""

    start_ns: int
    path: Path


class IncidentError(ProblemError):
    """An incident that cannot be found, or made."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


def segment_name(start_ns: int, number: int) -> str:
    """Return the file name of a segment, which sorts by time."""
    return f"{start_ns:019}_{number}.mcap"


def segments(folder: Path) -> list[Segment]:
    """Return the segments in a folder, oldest first."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
    found = ((name, _SEGMENT.fullmatch(name)) for name in sorted(names))
    return [Segment(int(match[1]), folder / name) for name, match in found if match]


def overlapping(known: list[Segment], start_ns: int, end_ns: int) -> list[Segment]:
    """Return the segments that hold messages between two moments; the last one still grows."""
    return [
        each
        for at, each in enumerate(known)
        if each.start_ns <= end_ns and (at + 1 == len(known) or known[at + 1].start_ns > start_ns)
    ]


def prune(folder: Path, keep_s: float, max_bytes: int | None, now_ns: int) -> int:
    """Remove segments that are older than `keep_s`, or beyond `max_bytes`; return their number.

    The newest two stay: one is being written, and the other may be.
    """
    known = segments(folder / RING)
    sizes = {each.path: _size(each.path) for each in known}
    total = sum(sizes.values())
    removed = 0
    for each, following in pairwise(known[:-1]):
        old = following.start_ns < now_ns - int(keep_s * 1e9)
        if not old and (max_bytes is None or total <= max_bytes):
            break
        each.path.unlink(missing_ok=True)
        total -= sizes[each.path]
        removed += 1
    return removed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# -- Marks and incidents


def request(folder: Path, mark: Mark) -> str:
    """Ask the recorder of a black box to keep an incident; return its id.

    Raises:
        IncidentError: there is no black box, or it has too many requests.
        OSError: the folder cannot be written.
    """
    marks = folder / MARKS
    if not marks.is_dir():
        raise IncidentError(
            f"{folder} is not a black box", "start one with `record: {keep: 60s}` in the dataflow"
        )
    if sum(1 for _ in marks.iterdir()) >= MAX_MARKS:
        raise IncidentError(f"{MAX_MARKS} requests wait in {marks}", "is the recorder running?")
    name = new_id(mark)
    temporary = marks / f".{name}"
    temporary.write_bytes(msgspec.json.encode(mark))
    temporary.rename(marks / f"{name}.json")
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
                yield path.stem, msgspec.json.decode(path.read_bytes(), type=Mark)
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
    incidents = folder / INCIDENTS
    incidents.mkdir(exist_ok=True)
    if sum(1 for _ in incidents.iterdir()) >= MAX_MARKS:
        raise IncidentError(
            f"there are {MAX_MARKS} incidents", "remove some with `dora record incidents --remove`"
        )
    own = incidents / name
    own.mkdir()
    (own / _INFO).write_bytes(msgspec.json.encode(mark))
    _link(segments(folder / RING), own, mark)
    sync_directory(own)
    sync_directory(incidents)
    return own


def link_new(folder: Path, now_ns: int) -> None:
    """Link new segments of the ring to the incidents whose time is not over."""
    known = segments(folder / RING)
    for own, mark in incidents(folder):
        # One more segment's time: its last messages may be in a segment that was linked late.
        if now_ns <= mark.end_ns + int(2 * SEGMENT_S * 1e9):
            _link(known, own, mark)


def _link(known: list[Segment], own: Path, mark: Mark) -> None:
    for each in overlapping(known, mark.start_ns, mark.end_ns):
        target = own / each.path.name
        if not target.exists():
            try:
                os.link(each.path, target)
            except FileNotFoundError:
                _log.debug("%s was removed meanwhile", each.path)


def incidents(folder: Path) -> list[tuple[Path, Mark]]:
    """Return the incidents of a black box, oldest first."""
    found = []
    for path in sorted((folder / INCIDENTS).glob(f"*/{_INFO}")):
        try:
            found.append((path.parent, msgspec.json.decode(path.read_bytes(), type=Mark)))
        except (ValueError, OSError) as error:
            _log.warning("%s cannot be read: %s", path, error)
    return sorted(found, key=lambda each: each[1].time_ns)


def incident(folder: Path, name: str) -> tuple[Path, Mark]:
    """Return one incident. Raises IncidentError if there is no incident of that name."""
    known = incidents(folder)
    for own, mark in known:
        if own.name == name:
            return own, mark
    names = ", ".join(own.name for own, _ in known[-5:]) or "none"
    raise IncidentError(f"there is no incident {name!r}", f"there are: {names}")


def remove(folder: Path, name: str) -> None:
    """Remove an incident; segments that nothing else links leave the disk. Raises IncidentError."""
    own, _ = incident(folder, name)
    shutil.rmtree(own)


class BlackBox:
    """What a recorder does for its black box, a few times a second. Belongs to one thread."""

    def __init__(self, folder: Path, keep_s: float, max_bytes: int | None) -> None:
        """Create the folders. Raises OSError."""
        self.folder = folder
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        for name in (RING, MARKS, INCIDENTS):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def tend(self) -> list[str]:
        """Answer requests, link new segments, remove old ones; return the ids of new incidents.

        Raises:
            OSError: the folder cannot be written.
        """
        made = []
        for name, mark in take_requests(self.folder):
            try:
                create(self.folder, name, mark)
                made.append(name)
            except IncidentError as error:
                _log.warning("%s", error)
        now_ns = time.time_ns()
        link_new(self.folder, now_ns)
        prune(self.folder, self._keep_s, self._max_bytes, now_ns)
        return made
