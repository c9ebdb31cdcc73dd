"""Hot reload: watches the Python files of a dataflow, and has what runs them take up a change.

An operator loads its file anew and keeps its state; a node gets another process, and keeps its
mailbox. It is the daemon that watches, so it goes on whoever asked for it stays or not. The files
are looked at rather than waited for: that finds an editor that saves by renaming, and a change made
while no daemon was there, and needs nothing from the file system.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct, field

from dorad.daemon.errors import CommandError
from dorad.daemon.rules.ladder import RESTART_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from dorad.daemon.supervisor.ports import Notice
    from dorad.dataflow.model import Dataflow
    from dorad.launch.command import Runner

LOOK_S = 0.2
"""Seconds between looks. A change counts when a second look finds the file as the first did."""


class Signature(NamedTuple):
    """What differs between a file and one that was saved in its place."""

    modified_ns: int
    inode: int
    size: int


class Watched(Struct, frozen=True):
    """A file: as it was taken up, and as the last look found it."""

    known: Signature | None
    seen: Signature | None

    def look(self, now: Signature | None) -> tuple[Watched, bool]:
        """Return the file after a look, and whether it is to be taken up.

        A file that is not there for a moment is being saved; so is one that still changes.
        """
        if now is None or now == self.known:
            return Watched(self.known, self.known), False
        if now != self.seen:
            return Watched(self.known, now), False
        return Watched(now, now), True


class Reloadable(Protocol):
    """What can take up a change."""

    @property
    def dataflow(self) -> Dataflow:
        """The dataflow as it is now."""

    def reload(self, node_id: str, operator: str) -> None:
        """Let an operator load its file anew."""

    async def restart_node(self, node_id: str, grace: float) -> None:
        """Give a node another process. Raises CommandError."""


class HotReload(Struct, eq=False):
    """Watches the files of one dataflow. `files` tells who runs which, `notice` tells the user."""

    run: Reloadable
    files: Callable[[Dataflow], Mapping[Path, tuple[Runner, ...]]]
    notice: Notice
    on_change: Callable[[], None] = lambda: None
    """Called when `snapshot` would differ."""
    _watched: dict[Path, Watched] = field(default_factory=dict)
    _restarts: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _again: set[str] = field(default_factory=set)

    def snapshot(self) -> dict[str, list[int]]:
        """Return the files as they were taken up, JSON-able, for the next daemon."""
        return {str(path): [*each.known] for path, each in self._watched.items() if each.known}

    def begin(self, kept: Mapping[str, list[int]] | None = None) -> None:
        """Note how the files are now, before the nodes are started; `kept` is a `snapshot`."""
        for path in self.files(self.run.dataflow):
            known = (kept or {}).get(str(path))
            self._add(path, signature(path) if known is None else Signature(*known))

    def _add(self, path: Path, known: Signature | None) -> None:
        self._watched[path] = Watched(known, known)
        if known is None:
            self.notice("warn", None, f"hot reload: {path} cannot be watched: it is not there")

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                files = self.files(self.run.dataflow)
                seen = await asyncio.to_thread(_signatures, list(files))
                changed = self._look(seen)
                for runner in dict.fromkeys(t for path in changed for t in files[path]):
                    self._take_up(runner, next(p for p in changed if runner in files[p]))
                if changed:
                    self.on_change()
        finally:
            for task in self._restarts.values():
                task.cancel()

    def _look(self, seen: Mapping[Path, Signature | None]) -> list[Path]:
        """Take note of how the files are; return those that are to be taken up."""
        changed = []
        for path, now in seen.items():
            if path not in self._watched:  # of a node that was just added
                self._add(path, now)
            self._watched[path], take_up = self._watched[path].look(now)
            if take_up:
                changed.append(path)
        for path in self._watched.keys() - seen.keys():
            del self._watched[path]
        return changed

    def _take_up(self, runner: Runner, path: Path) -> None:
        if runner.operator is not None:
            self.run.reload(runner.node, runner.operator)
        elif runner.node in self._restarts:
            self._again.add(runner.node)
        else:
            restart = asyncio.create_task(self._restart(runner.node, path))
            self._restarts[runner.node] = restart
            restart.add_done_callback(lambda _: self._restarts.pop(runner.node, None))

    async def _restart(self, node_id: str, path: Path) -> None:
        """Restart a node, once more if its file changes meanwhile, unless it cannot be read."""
        while True:
            self._again.discard(node_id)
            wrong = await asyncio.to_thread(mistake_in, path)
            if wrong is not None:
                text = f"{path} was changed, but cannot be compiled; the node goes on as it is: "
                self.notice("error", node_id, text + wrong)
            else:
                self.notice("info", node_id, f"{path} was changed; restarting the node")
                try:
                    await self.run.restart_node(node_id, RESTART_GRACE_S)
                except CommandError as error:
                    text = f"was not restarted after a change: {error.message}"
                    self.notice("warn", node_id, text)
            if node_id not in self._again:
                return


def signature(path: Path) -> Signature | None:
    """Return what tells a file from the one before it; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Signature(found.st_mtime_ns, found.st_ino, found.st_size)


def _signatures(paths: Iterable[Path]) -> dict[Path, Signature | None]:
    return {path: signature(path) for path in paths}


def mistake_in(path: Path) -> str | None:
    """Return why a Python file cannot be compiled, if so; one that cannot be read may be fine."""
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    except OSError:
        return None
    return None
