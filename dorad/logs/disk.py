"""How much of the disk logs may take, and what goes when it is too much.

The oldest finished dataflows go first, then rotated files of those that run. The file that a
running node writes to stays. Nothing but our own files is ever touched: an `out` folder may hold
others.
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
"""A file that has no limit of its own may take the limit divided by this,"""
SMALLEST = 64 << 10
"""or so many bytes, if that is more."""
LEFT_ALONE_S = 600.0
"""A dataflow that is not known to have ended may be taken over by another daemon. Its folder counts
as finished when nothing was written to it for as long as this."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LogEntry(NamedTuple):
    """One log file, or the description beside them."""

    path: Path
    size: int
    changed: float


class Run(NamedTuple):
    """The files of one run of a dataflow."""

    folder: Path
    files: tuple[LogEntry, ...]
    rotated: tuple[LogEntry, ...]
    """Those of `files` that nothing is appended to."""
    finished: bool

    @property
    def changed(self) -> float:
        """When something was written last."""
        return max((entry.changed for entry in self.files), default=0.0)


def limit(environ: Mapping[str, str]) -> int | None:
    """Return the bytes that the logs below one `out` folder may take; None is no limit.

    Raises:
        ValueError: the variable says something else than a size or `off`.
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
    """Return the bytes at which a file is rotated that has no limit of its own; None is never.

    With the usual number of rotated files a node alone keeps below the whole limit.
    """
    return None if limit is None else max(limit // SHARE, SMALLEST)


def prepare(folder: Path) -> None:
    """Make the folder of a run. A new `out` folder is kept out of git. Raises OSError."""
    out = folder.parent
    if not out.exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / ".gitignore").write_text("*\n", encoding="utf-8")
    folder.mkdir(exist_ok=True)


def make_room(out: Path, *, keep: Iterable[str], limit: int | None) -> None:
    """Delete what is too much below `out`; the folders named in `keep` belong to what runs."""
    if limit is None:
        return
    for path in too_much(survey(out, frozenset(keep), time.time()), limit):
        with contextlib.suppress(OSError):  # gone already, or not ours to delete
            path.unlink()
        with contextlib.suppress(OSError):  # something is left in it
            path.parent.rmdir()


def too_much(runs: Sequence[Run], limit: int) -> list[Path]:
    """Return the files to delete so that the rest takes `limit` bytes at most, if it can be had."""
    total = sum(entry.size for run in runs for entry in run.files)
    finished = sorted((run for run in runs if run.finished), key=lambda run: run.changed)
    rotated = [entry for run in runs if not run.finished for entry in run.rotated]
    doomed: list[Path] = []
    for run in finished:
        if total <= limit:
            return doomed
        doomed += [entry.path for entry in run.files]
        total -= sum(entry.size for entry in run.files)
    for entry in sorted(rotated, key=lambda entry: entry.changed):
        if total <= limit:
            break
        doomed.append(entry.path)
        total -= entry.size
    return doomed


def survey(out: Path, keep: frozenset[str], now: float) -> list[Run]:
    """Return the runs whose files lie below `out`."""
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
    if running or (known is not None and not known.ended and about.writer_lives(known)):
        return run
    ended = known is not None and known.ended
    return run._replace(finished=ended or now - run.changed > LEFT_ALONE_S)


def _entries(folder: Path) -> Iterable[LogEntry]:
    for path in folder.iterdir():
        if path.name == ABOUT or is_log_file(path.name):
            with contextlib.suppress(FileNotFoundError):  # rotated or deleted meanwhile
                status = path.stat()
                yield LogEntry(path, status.st_size, status.st_mtime)
