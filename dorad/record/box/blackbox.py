"""What a recorder does for its black box, a few times a second."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from dorad.atomicfile import ANY_TEMPORARY, remove_abandoned
from dorad.record.box import incidents, ring
from dorad.record.box.incidents import INCIDENTS, MARKS, IncidentError, Mark
from dorad.record.box.ring import RING

if TYPE_CHECKING:
    from pathlib import Path

MADE_S = 30.0
"""Seconds until a running recorder has answered a request."""

PRUNE_S = 10.0
"""Seconds between two searches for incidents to remove."""

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """What a black box keeps: seconds and bytes of its ring and of its incidents, None for all."""

    keep_s: float
    max_bytes: int | None = None
    incident_s: float | None = None
    incident_bytes: int | None = None


class BlackBox:
    """The folder of a black box, as its only recorder. Belongs to one thread."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Create the folders, and lock them against other recorders.

        Raises:
            OSError: the folder cannot be written, or another recorder uses it.
        """
        self.folder = folder
        self._limits = limits
        for name in (RING, MARKS, INCIDENTS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / RING, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            text = "another recorder uses this black box"
            raise OSError(errno.EBUSY, text, str(folder)) from None
        # Those of requests: each has a name of its own, so no later one removes it.
        remove_abandoned(folder / MARKS, ANY_TEMPORARY)
        self._ended: dict[Path, float] = {}
        """When each segment has ended, on the monotonic clock: the wall clock may be set."""
        self._prune_at = 0.0
        now_ns, now = time.time_ns(), time.monotonic()
        known = ring.segments(folder / RING)
        self.last_number = known[-1].number if known else 0
        """The number of the newest segment that an earlier recorder has left."""
        for each in known:
            self._ended[each.path] = now - max(0.0, (now_ns - each.start_ns) / 1e9 - ring.SEGMENT_S)

    def close(self) -> None:
        """Let another recorder use the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def tend(self) -> list[str]:
        """Answer requests, link new segments, remove old ones; return the ids of new incidents.

        Raises:
            OSError: the folder cannot be written.
        """
        made = []
        for name, mark in incidents.take_requests(self.folder):
            try:
                incidents.create(self.folder, name, mark)
                made.append(name)
            except IncidentError as error:
                _log.warning("no incident is kept: %s", error)
        incidents.link_new(self.folder, time.time_ns())
        self._prune_ring()
        now = time.monotonic()
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_S
            self._prune_incidents()
        return made

    def make_room(self, wanted: int) -> None:
        """Remove the oldest segments of the ring until `wanted` bytes of the disk are free more.

        Segments of incidents stay: they free nothing.
        """
        for each in ring.segments(self.folder / RING)[: -ring.KEPT]:
            if wanted <= 0:
                return
            try:
                status = each.path.stat()
            except FileNotFoundError:
                continue
            if status.st_nlink == 1:
                _log.warning("%s is removed: the disk is nearly full", each.path.name)
                each.path.unlink(missing_ok=True)
                wanted -= status.st_size

    def _prune_ring(self) -> None:
        known = ring.segments(self.folder / RING)
        now = time.monotonic()
        paths = {each.path for each in known[:-1]}
        self._ended = {path: self._ended.get(path, now) for path in paths}
        limits = self._limits
        ages = {path: now - ended for path, ended in self._ended.items()}
        sizes = {each.path: ring.size_of(each.path) for each in known}
        for each in ring.surplus(known, sizes, ages, limits.keep_s, limits.max_bytes):
            _log.debug("%s is removed", each.path.name)
            each.path.unlink(missing_ok=True)

    def _prune_incidents(self) -> None:
        limits = self._limits
        if limits.incident_s is None and limits.incident_bytes is None:
            return
        known = incidents.incidents(self.folder)
        now_ns = time.time_ns()
        for own in incidents.surplus(known, limits.incident_s, limits.incident_bytes, now_ns):
            _log.info("incident %s is removed: it is beyond the limits", own.name)
            try:
                incidents.discard(own)
            except OSError as error:
                _log.warning("incident %s cannot be removed: %s", own.name, error.strerror)


def has_recorder(folder: Path) -> bool:
    """Return True if a recorder uses the black box in a folder. Raises OSError."""
    descriptor = os.open(folder / RING, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def keep(folder: Path, mark: Mark) -> Path:
    """Make an incident of the black box in a folder, and return the incident's folder.

    The recorder makes it; if none runs, this process does.

    Raises:
        IncidentError: there is no black box, there are too many incidents, or no answer.
        OSError: the folder cannot be written.
    """
    name = incidents.request(folder, mark)
    own = folder / INCIDENTS / name
    end = time.monotonic() + MADE_S
    while not (own / incidents.INFO).exists():
        if not has_recorder(folder):
            # No more messages are added to the ring.
            for left, each in incidents.take_requests(folder):
                incidents.create(folder, left, each)
            return own
        if time.monotonic() > end:
            raise IncidentError(
                f"the recorder has not answered within {MADE_S:g} s",
                "its log says why: `dora logs`",
            )
        time.sleep(0.02)
    return own
