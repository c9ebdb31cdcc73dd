"""Hot reload: polls the Python files and built programs of a dataflow and reloads what runs them.

An operator loads its changed file again and keeps its state. A node gets a new process and keeps
its mailbox. Polling works on every file system, and also finds files that an editor saves by
renaming, and changes made while no daemon ran.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from dorad.boundedfile import read_bounded
from dorad.control.errors import ControlError
from dorad.daemon.broker.notifications import Notifications
from dorad.daemon.rules.ladder import RESTART_GRACE_S
from dorad.daemon.storing import Changes
from dorad.daemon.supervisor.commands import Commands
from dorad.daemon.supervisor.state import RunListener
from dorad.launch.command import Runner

POLL_S = 0.2
"""Seconds between two polls. A change counts once two polls in a row find the same file."""

MAX_SOURCE = 16 << 20
"""Bytes of a Python file that is compiled to find mistakes."""

_log = logging.getLogger(__name__)


class Signature(NamedTuple):
    """The identity of a saved version of a file."""

    modified_ns: int
    inode: int
    size: int


class Watched(Struct, frozen=True):
    """A watched file."""

    loaded: Signature | None
    """The file that runs."""
    polled: Signature | None
    """The file at the last poll."""

    def poll(self, now: Signature | None) -> tuple[Watched, bool]:
        """Return the file after a poll, and True if it must be reloaded.

        A file that is missing or that still changes is being saved.
        """
        if now is None or now == self.loaded:
            return Watched(self.loaded, self.loaded), False
        if now != self.polled:
            return Watched(self.loaded, now), False
        return Watched(now, now), True


class HotReload(Struct, eq=False):
    """Watches the Python files of one dataflow."""

    files: Callable[[], Mapping[Path, tuple[Runner, ...]]]
    """Returns the files of the dataflow as it is now, and what runs each of them."""
    commands: Commands
    notifications: Notifications
    listener: RunListener
    changes: Changes
    """Learns when `snapshot` would differ."""
    _watched: dict[Path, Watched] = field(default_factory=dict)
    _restarts: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _changed_again: set[str] = field(default_factory=set)
    """Nodes whose file changed once more during their restart."""
    _outdated: dict[Path, Signature | None] = field(default_factory=dict)
    """Changed files that nodes are being restarted for, as the old processes have loaded them."""

    def snapshot(self) -> dict[str, list[int]]:
        """Return the signatures of the loaded files as JSON-able values, for the next daemon.

        That daemon restarts the nodes again whose restart has not ended: two are better than none.
        """
        loaded = {path: each.loaded for path, each in self._watched.items()} | self._outdated
        return {str(path): [*file] for path, file in loaded.items() if file}

    def begin(self, snapshot: Mapping[str, list[int]] | None = None) -> None:
        """Record the files before the nodes are started; `snapshot` is an earlier daemon's."""
        for path in self.files():
            loaded = (snapshot or {}).get(str(path))
            self._add(path, signature(path) if loaded is None else Signature(*loaded))

    def _add(self, path: Path, loaded: Signature | None) -> None:
        self._watched[path] = Watched(loaded, loaded)
        if loaded is None:
            self.listener.report("warn", None, f"hot reload cannot watch {path}: no such file")

    async def watch(self) -> None:
        """Poll the files until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_S)
                files = self.files()
                signatures = await asyncio.to_thread(_signatures, list(files))
                changed = self._changed_files(signatures)
                for runner in dict.fromkeys(r for path in changed for r in files[path]):
                    self._reload(runner, next(p for p in changed if runner in files[p]))
                if changed:
                    self._drop_outdated()
        finally:
            for task in self._restarts.values():
                task.cancel()

    def _changed_files(self, signatures: Mapping[Path, Signature | None]) -> list[Path]:
        """Record a poll; return the files to reload."""
        changed = []
        for path, now in signatures.items():
            if path not in self._watched:  # a node was added
                self._add(path, now)
            before = self._watched[path]
            self._watched[path], is_changed = before.poll(now)
            if is_changed:
                self._outdated.setdefault(path, before.loaded)
                changed.append(path)
        for path in self._watched.keys() - signatures.keys():
            del self._watched[path]
        return changed

    def _reload(self, runner: Runner, path: Path) -> None:
        _log.debug("%s has changed: %s reloads it", path, runner)
        if runner.operator is not None:
            self.notifications.reload(runner.node, runner.operator)
        elif runner.node in self._restarts:
            self._changed_again.add(runner.node)
        else:
            restart = asyncio.create_task(self._restart(runner.node, path))
            self._restarts[runner.node] = restart
            restart.add_done_callback(lambda _: self._restarted(runner.node))

    def _restarted(self, node_id: str) -> None:
        self._restarts.pop(node_id, None)
        self._drop_outdated()

    def _drop_outdated(self) -> None:
        """Forget the old files of nodes that are not being restarted, and store the new ones."""
        files = self.files()
        for path in list(self._outdated):
            if not any(runner.node in self._restarts for runner in files.get(path, ())):
                del self._outdated[path]
        self.changes.changed()

    async def _restart(self, node_id: str, path: Path) -> None:
        """Restart a node if its file can run; repeat if the file changes meanwhile."""
        while True:
            self._changed_again.discard(node_id)
            mistake = await asyncio.to_thread(mistake_in, path)
            if mistake is not None:
                text = f"{path} has changed but cannot run; the node runs on unchanged: "
                self.listener.report("error", node_id, text + mistake)
            else:
                self.listener.report("info", node_id, f"{path} has changed; restarting the node")
                try:
                    await self.commands.restart(node_id, RESTART_GRACE_S)
                except ControlError as error:
                    self.listener.report(
                        "warn", node_id, f"was not restarted after a change: {error.message}"
                    )
            if node_id not in self._changed_again:
                return


def signature(path: Path) -> Signature | None:
    """Return the signature of a file; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Signature(status.st_mtime_ns, status.st_ino, status.st_size)


def _signatures(paths: Iterable[Path]) -> dict[Path, Signature | None]:
    return {path: signature(path) for path in paths}


def mistake_in(path: Path) -> str | None:
    """Return the reason why a file cannot run; None if it seems to, or is unreadable.

    A Python file is compiled; a program must be executable.
    """
    if path.suffix != ".py":
        return None if os.access(path, os.X_OK) else "it is not executable"
    try:
        compile(read_bounded(path, MAX_SOURCE), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    except OSError:
        return None
    return None
