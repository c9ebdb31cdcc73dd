"""Whether a disk that dora and its nodes write to is getting full."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from pathlib import Path

WARN_SHARE, WARN_BYTES = 0.10, 1_000_000_000
"""A disk gets full when less than this share of it is free, and less than so many bytes."""
FAIL_SHARE, FAIL_BYTES = 0.02, 100_000_000
"""It is full when less than this is free."""
HYSTERESIS = 1.2
"""How many times as much must be free again before a finding ends."""

EVERY_S = 5.0
"""Time between two measurements."""

_log = logging.getLogger(__name__)


class Space(NamedTuple):
    """The room on the disk of a folder."""

    folder: str
    device: int
    """Names the disk."""
    size: int
    """In bytes."""
    free: int
    """Bytes that users other than root may write."""
    files: int
    """How many files it can have; 0 if it has no such limit."""
    free_files: int


class LowDisk(NamedTuple):
    """A disk that is getting full."""

    folder: str
    text: str
    severity: Literal["warn", "fail"]


def low_disks(spaces: Iterable[Space], before: Container[str] = ()) -> list[LowDisk]:
    """Return the disks that get full, each once; `before` are the folders of the last result."""
    found: dict[int, LowDisk] = {}
    for space in spaces:
        if space.device in found or not space.size:
            continue
        factor = HYSTERESIS if space.folder in before else 1.0
        severity = _severity(space, factor)
        if severity is not None:
            found[space.device] = LowDisk(space.folder, _text(space, factor), severity)
    return list(found.values())


def _severity(space: Space, factor: float) -> Literal["warn", "fail"] | None:
    if _below(space, FAIL_SHARE, FAIL_BYTES, 1.0):
        return "fail"
    return "warn" if _below(space, WARN_SHARE, WARN_BYTES, factor) else None


def _below(space: Space, share: float, size: float, factor: float) -> bool:
    return _few_files(space, share, factor) or space.free < factor * min(share * space.size, size)


def _few_files(space: Space, share: float, factor: float) -> bool:
    return space.files > 0 and space.free_files < factor * share * space.files


def _text(space: Space, factor: float) -> str:
    if _few_files(space, WARN_SHARE, factor):
        room = f"room for {space.free_files} more files of {space.files}"
    else:
        room = f"{_bytes(space.free)} free of {_bytes(space.size)}"
    return (
        f"the disk of {space.folder} has {room}: once it is full, nothing is recorded, no release"
        " is taken, and a reboot forgets what cannot be stored"
    )


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


class DiskWatch:
    """Measures the disks of some folders."""

    def __init__(
        self, folders: Iterable[Path], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folders = list(folders)
        self._clock = clock
        self._due = 0.0
        self._low: list[LowDisk] = []

    def low(self) -> list[LowDisk]:
        """Return the disks that are getting full, measured within the last EVERY_S seconds."""
        now = self._clock()
        if now >= self._due:
            self._due = now + EVERY_S
            self._low = low_disks(spaces(self._folders), {each.folder for each in self._low})
            for each in self._low:
                _log.debug("%s: %s", each.severity, each.text)
        return self._low


def spaces(folders: Iterable[Path]) -> Iterator[Space]:
    """Yield the room on the disk of each folder that exists."""
    for folder in folders:
        try:
            device, space = folder.stat().st_dev, os.statvfs(folder)
        except OSError as error:
            _log.debug("the disk of %s is not measured: %s", folder, error)
            continue
        yield Space(
            str(folder),
            device,
            space.f_blocks * space.f_frsize,
            space.f_bavail * space.f_frsize,
            space.f_files,
            # Some file systems make room for files as they need it.
            space.f_favail if space.f_files else 0,
        )
