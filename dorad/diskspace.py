"""Whether a disk that dora and its nodes write to is getting full, or will be soon."""

from __future__ import annotations

import logging
import math
import os
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.phrases import size_text

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

BLOCK_S = 60.0
"""Time between two measurements that are compared, to see whether a disk fills."""
BLOCKS = 5
"""How many of them in a row must show that: a build or a download ends before."""
STEADY = 0.5
"""What it loses in each of them at least, as a share of the mean."""
SOON_S = 1800.0
"""A disk fills if it is full within this time, at the rate of the last minutes."""
FILLS = 1.5
"""How many times as long it must last for a finding about that to end."""

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


class FillingDisk(NamedTuple):
    """A disk that will soon be full."""

    folder: str
    rate: float
    """Bytes a second."""
    seconds: float
    """Time until it is full."""


class Room(NamedTuple):
    """How the room on a disk has changed. Times are those of a clock that never steps."""

    blocks: tuple[tuple[float, int], ...] = ()
    """The time and the free bytes, once a minute, of the last minutes."""
    fills: bool = False

    @property
    def rate(self) -> float:
        """Bytes by which it loses room a second; 0 while that is not known."""
        if len(self.blocks) < 2:
            return 0.0
        (began, first), (ended, last) = self.blocks[0], self.blocks[-1]
        return (first - last) / (ended - began)

    @property
    def seconds(self) -> float:
        """Time until it is full at this rate; infinite if it is not filled."""
        return self.blocks[-1][1] / self.rate if self.rate > 0 else math.inf


def room_after(before: Room, at: float, free: int) -> Room:
    """Return what is known after a measurement at the time `at`."""
    blocks = before.blocks
    if not blocks:
        return Room(((at, free),))
    passed = at - blocks[-1][0]
    if passed < BLOCK_S:
        return before
    if passed > 2 * BLOCK_S:  # the machine slept, or the disk did not answer
        return Room(((at, free),))
    now = Room((*blocks[-BLOCKS:], (at, free)), before.fills)
    if now.fills:
        return now._replace(fills=free < blocks[-1][1] and now.seconds < FILLS * SOON_S)
    # Each minute must take its part: a download of some minutes beside a log that always grows is
    # no disk that fills.
    steady = len(now.blocks) > BLOCKS and all(
        first - last >= STEADY * now.rate * (ended - began)
        for (began, first), (ended, last) in pairwise(now.blocks)
    )
    return now._replace(fills=steady and now.seconds < SOON_S)


def low_disks(spaces: Iterable[Space], before: Container[str] = ()) -> list[LowDisk]:
    """Return the disks that get full, each once; `before` are the folders of the last result."""
    low: dict[int, LowDisk] = {}
    for space in spaces:
        if space.device in low or not space.size:
            continue
        factor = HYSTERESIS if space.folder in before else 1.0
        severity = _severity(space, factor)
        if severity is not None:
            low[space.device] = LowDisk(space.folder, _text(space, factor), severity)
    return list(low.values())


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
        room = f"{size_text(space.free)} free of {size_text(space.size)}"
    return (
        f"the disk of {space.folder} has {room}: once it is full, nothing is recorded, no release"
        " is taken, and a reboot forgets what cannot be stored"
    )


class DiskWatch:
    """Measures the disks of some folders."""

    def __init__(
        self, folders: Iterable[Path], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folders = list(folders)
        self._clock = clock
        self._due = 0.0
        self._low: list[LowDisk] = []
        self._rooms: dict[str, Room] = {}

    def low(self) -> list[LowDisk]:
        """Return the disks that are getting full, measured within the last EVERY_S seconds."""
        now = self._clock()
        if now >= self._due:
            self._due = now + EVERY_S
            measured = list(spaces(self._folders))
            self._low = low_disks(measured, {each.folder for each in self._low})
            for each in self._low:
                _log.debug("%s: %s", each.severity, each.text)
            first = {space.device: space for space in reversed(measured)}
            self._rooms = {
                space.folder: room_after(self._rooms.get(space.folder, Room()), now, space.free)
                for space in first.values()
            }
        return self._low

    def filling(self) -> list[FillingDisk]:
        """Return the disks that are not low, but will soon be full, as `low` has measured them."""
        low = {each.folder for each in self._low}
        return [
            FillingDisk(folder, room.rate, room.seconds)
            for folder, room in self._rooms.items()
            if room.fills and folder not in low
        ]


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
