"""The limit of disk space for logs, and which files are deleted above it.

The oldest finished runs are deleted first, then rotated files of running ones. The file that a
running node writes to stays. Only log files are ever touched: an `out` folder may hold others.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.errors import TextError
from dorad.dataflow.sizes import parse_size
from dorad.logs import about
from dorad.logs.paths import ABOUT, is_log_file, is_rotated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

VARIABLE = "DORA_LOG_DISK_LIMIT"
DEFAULT_LIMIT = 1 << 30
SHARE = 8
"""A file without its own limit may take the limit divided by this,"""
SMALLEST = 64 << 10
"""or this many bytes, if that is more."""
ABANDONED_S = 600.0
"""Seconds without a write after which a run without a recorded end counts as finished. Before that,
another daemon may adopt it."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LogEntry(NamedTuple):
    """One log file, or the `dataflow.json` beside it."""

    path: Path
    size: int
    changed: float


class Run(NamedTuple):
    """The files of one run of a dataflow."""

    folder: Path
    files: tuple[LogEntry, ...]
    rotated: tuple[LogEntry, ...]
    """The closed files among `files`."""
    finished: bool

    @property
    def changed(self) -> float:
        """The time of the last write."""
        return max((entry.changed for entry in self.files), default=0.0)


def limit(environ: Mapping[str, str]) -> int | None:
    """Return how many bytes the logs below one `out` folder may take; None is unlimited.

    Raises:
        ValueError: the variable is neither a size nor `off`.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    if text.lower() == "off":
        return None
    try:
        return parse_size(text)
    except TextError as error:
        raise ValueError(f"{VARIABLE}: {error}; or write `off`") from error


def share(limit: int | None) -> int | None:
    """Return the size at which a file without its own limit is rotated; None is never.

    With the default number of rotated files, one node alone stays below the whole limit.
    """
    return None if limit is None else max(limit // SHARE, SMALLEST)


def prepare(folder: Path) -> None:
    """Create the folder of a run. A new `out` folder is kept out of git. Raises OSError."""
    out = folder.parent
    if not out.exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / ".gitignore").write_text("*\n", encoding="utf-8")
    folder.mkdir(exist_ok=True)


def make_room(out: Path, *, keep: Iterable[str], limit: int | None) -> None:
    """Delete files below `out` until `limit` is met; `keep` names folders of running dataflows."""
    if limit is None:
        return
    for path in files_to_delete(survey(out, frozenset(keep), time.time()), limit):
        with contextlib.suppress(OSError):  # already deleted, or not permitted
            path.unlink()
        with contextlib.suppress(OSError):  # not empty
            path.parent.rmdir()


def files_to_delete(runs: Sequence[Run], limit: int) -> list[Path]:
    """Return the files to delete so that the rest takes at most `limit` bytes, if possible."""
    total = sum(entry.size for run in runs for entry in run.files)
    finished = sorted((run for run in runs if run.finished), key=lambda run: run.changed)
    rotated = [entry for run in runs if not run.finished for entry in run.rotated]
    chosen: list[Path] = []
    for run in finished:
        if total <= limit:
            return chosen
        chosen += [entry.path for entry in run.files]
        total -= sum(entry.size for entry in run.files)
    for entry in sorted(rotated, key=lambda entry: entry.changed):
        if total <= limit:
            break
        chosen.append(entry.path)
        total -= entry.size
    return chosen


def survey(out: Path, keep: frozenset[str], now: float) -> list[Run]:
    """Return the runs that have files below `out`."""
    try:
        folders = [path for path in out.iterdir() if _UUID.fullmatch(path.name) and path.is_dir()]
    except OSError:
        return []
    return [_run(folder, folder.name in keep, now) for folder in folders]


def _run(folder: Path, running: bool, now: float) -> Run:
    known = about.read(folder)
    files = tuple(_entries(folder))
    nodes = known.nodes if known else ()
    rotated = tuple(entry for entry in files if is_rotated(entry.path.name, nodes))
    run = Run(folder, files, rotated, finished=False)
    if running or (known is not None and not known.ended and about.writer_is_alive(known)):
        return run
    ended = known is not None and known.ended
    return run._replace(finished=ended or now - run.changed > ABANDONED_S)


def _entries(folder: Path) -> Iterable[LogEntry]:
    for path in folder.iterdir():
        if path.name == ABOUT or is_log_file(path.name):
            with contextlib.suppress(FileNotFoundError):  # rotated or deleted meanwhile
                status = path.stat()
                yield LogEntry(path, status.st_size, status.st_mtime)
