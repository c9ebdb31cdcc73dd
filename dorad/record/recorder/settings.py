"""The settings of a recorder, and the names of its files."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from dorad.record.box.ring import RING, segment_name

MEMORY = 256 << 20
"""Bytes of messages that wait for the disk before new ones are dropped."""

MIN_FREE = 1 << 30
MIN_FREE_SHARE = 0.05
"""A recording stops when the disk has less free: 1 GiB, or 5 % of the disk if that is less."""

SUFFIX = ".mcap"


class Settings(Struct, frozen=True):
    """What to record where; sizes in bytes, times in seconds, None for no limit."""

    path: Path
    compression: str = "auto"
    split_bytes: int | None = None
    split_s: float | None = None
    max_bytes: int | None = None
    duration_s: float | None = None
    min_free: int | None = None
    """None is the default, see `MIN_FREE`."""
    memory: int = MEMORY
    keep_s: float | None = None
    """Keep only the last seconds, in segments; `path` is then the folder of a black box."""
    incident_s: float | None = None
    """How long a black box keeps incidents."""
    incident_bytes: int | None = None
    """How many bytes of incidents a black box keeps."""

    @property
    def box(self) -> Path | None:
        """The folder of the black box, None for a recording of everything."""
        return None if self.keep_s is None else self.path

    @property
    def folder(self) -> Path:
        """The folder that the files are written to."""
        return self.path.parent if self.box is None else self.box / RING

    @property
    def splits(self) -> bool:
        """Whether the recording has several files."""
        return self.split_bytes is not None or self.split_s is not None or self.keep_s is not None

    def part(self, number: int) -> Path:
        """Return the path of one file of the recording, counted from 1."""
        if not self.splits:
            return self.path
        if self.box is not None:
            return self.folder / segment_name(number, time.time_ns())
        return self.path.with_name(f"{self.path.stem}_{number:04}{self.path.suffix or SUFFIX}")


def default_path(name: str) -> Path:
    """Return the file of a recording of a dataflow now, in the current directory."""
    return Path(f"{name}_{time.strftime('%Y%m%d-%H%M%S')}{SUFFIX}")


def min_free(settings: Settings, total: int) -> int:
    """Return the bytes that must stay free on a disk of `total` bytes."""
    if settings.min_free is not None:
        return settings.min_free
    return min(MIN_FREE, int(total * MIN_FREE_SHARE))
