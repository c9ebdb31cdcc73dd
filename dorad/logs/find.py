"""Finding the logs of a dataflow below a folder, by UUID or by name, whether or not it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.logs import about
from dorad.logs.journal.sender import Sender, of_run
from dorad.logs.paths import nodes_in
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.logs.about import About

SHOWN = 8
"""Maximum number of dataflows that an error lists."""


class NoLogsError(ProblemError):
    """The requested logs do not exist; the message lists those that do."""

    def __init__(self, message: str) -> None:
        super().__init__("not-found", message)


class Found(NamedTuple):
    """The logs of one run."""

    folder: Path
    about: About | None
    """None if the folder has no `dataflow.json`, like dora's own."""
    others: int
    """Number of older runs that also match."""

    @classmethod
    def at(cls, folder: Path) -> Found:
        """Return the logs in a folder."""
        return cls(folder, about.read(folder), 0)

    @property
    def nodes(self) -> list[str]:
        """Present nodes, then past ones."""
        known = [] if self.about is None else [*self.about.nodes]
        return list(dict.fromkeys([*known, *nodes_in(self.folder)]))

    @property
    def name(self) -> str | None:
        """The name that the user gave to the run."""
        return None if self.about is None else self.about.name

    @property
    def title(self) -> str:
        """The name and UUID to show to users."""
        return self.folder.name if self.about is None else self.about.title

    @property
    def journal(self) -> bool:
        """Whether its lines went to the journal."""
        return self.about is not None and self.about.journal

    @property
    def sender(self) -> Sender | None:
        """The sender of its journal entries; None if its lines did not go to the journal."""
        try:
            return of_run(self.folder, self.about) if self.journal else None
        except FileNotFoundError:  # deleted meanwhile
            return None

    @property
    def running(self) -> bool:
        """Whether more lines may come."""
        known = about.read(self.folder)
        return known is not None and not known.ended and about.writer_is_alive(known)


def find(out: Path, wanted: str | None) -> Found:
    """Return the newest run that matches `wanted` (a UUID, its beginning, or a name; None is any).

    Raises:
        NoLogsError: no run matches.
    """
    runs = list_runs(out)
    if not runs:
        raise NoLogsError(f"there are no logs in {out}; `dora run` and `dora start` write them")
    if wanted is None:
        matching = runs
    else:
        matching = [run for run in runs if wanted in (run.folder.name, run.name)]
        if not matching and len(wanted) >= 4:
            matching = [run for run in runs if run.folder.name.startswith(wanted)]
            if len(matching) > 1:
                raise NoLogsError(f"several UUIDs in {out} begin with `{wanted}`; give more of it")
    if not matching:
        there = ", ".join(dict.fromkeys(run.name or run.folder.name for run in runs[:SHOWN]))
        more = ", ..." if len(runs) > SHOWN else ""
        raise NoLogsError(f"there are no logs of `{wanted}` in {out}; there are: {there}{more}")
    return matching[0]._replace(others=len(matching) - 1)


def list_runs(out: Path) -> list[Found]:
    """Return all runs, newest first."""
    try:
        folders = [path for path in out.iterdir() if path.is_dir()]
    except OSError:
        return []
    runs = [Found.at(path) for path in folders]
    runs = [run for run in runs if run.about or any(run.folder.glob("log_*.jsonl"))]
    return sorted(runs, key=_started, reverse=True)


def _started(run: Found) -> float:
    return run.folder.stat().st_mtime if run.about is None else run.about.started_at
