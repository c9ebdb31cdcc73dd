"""Find and end the processes of an earlier daemon when its process holder or its state is lost.

A daemon marks its nodes with the variable DORA_DAEMON, and their children inherit it. Its value is
the daemon's mark, or `<mark>#<more>`, where `more` may be a dataflow's UUID: both `find("m")` and
`find("m#flow")` find a process with `m#flow`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from msgspec import Struct

from dorad.launch.model import LaunchError
from dorad.procinfo import is_alive, stat_fields

VARIABLE = "DORA_DAEMON"
_RECHECK_SECONDS = 0.02
_WATCHED = 256
"""Number of processes killed at a time; each takes a descriptor."""

_log = logging.getLogger(__name__)


class Orphan(Struct, frozen=True):
    """A process whose supervisor has ended."""

    pid: int
    started: int
    """Clock ticks from boot to its start; a later process with the same pid has another value."""


class _Seen(Struct, frozen=True):
    parent: int
    started: int
    mark: str | None


def find(mark: str, spare: Collection[int] = ()) -> list[Orphan]:
    """Return this user's processes that carry `mark`, and their descendants. Blocks a little.

    Leaves out this process and the pids in `spare` (such as a process holder's), with their
    descendants, and processes that another daemon has marked.
    """
    seen = dict(_processes())
    below: dict[int, list[int]] = {}
    for pid, process in seen.items():
        below.setdefault(process.parent, []).append(pid)

    def family(roots: Collection[int], stop: Collection[int]) -> set[int]:
        pids: set[int] = set()
        heads = [pid for pid in roots if pid not in stop]
        while heads:
            pid = heads.pop()
            if pid not in pids:
                pids.add(pid)
                heads += [child for child in below.get(pid, ()) if child not in stop]
        return pids

    ours = {pid for pid, process in seen.items() if _carries(process.mark, mark)}
    others = {pid for pid, process in seen.items() if process.mark is not None} - ours
    spared = family({os.getpid(), *spare}, ())
    return [Orphan(pid, seen[pid].started) for pid in family(ours, others | spared) if pid in seen]


def end(mark: str, spare: Collection[int] = (), seconds: float = 10.0) -> list[Orphan]:
    """SIGKILL the processes that `find` returns until there are none; return them all. Blocks.

    Raises:
        LaunchError: some still run after `seconds`.
    """
    give_up_at = time.monotonic() + seconds
    orphans: set[Orphan] = set()
    while True:
        # One without the mark is found below its parent only: `find` misses it once that has died.
        orphans.update(find(mark, spare))
        running = [orphan for orphan in orphans if is_alive(orphan.pid, orphan.started)]
        if not running:
            return sorted(orphans, key=lambda orphan: orphan.pid)
        if time.monotonic() > give_up_at:
            pids = ", ".join(str(orphan.pid) for orphan in running[:10])
            raise LaunchError(f"processes left by an earlier dorad cannot be ended: {pids}")
        _log.debug("killing %d processes that are marked %s", len(running), mark)
        _kill(running[:_WATCHED])


def _kill(orphans: list[Orphan]) -> None:
    """SIGKILL these processes, and wait a moment for their end."""
    poll = select.poll()
    with contextlib.ExitStack() as handles:
        for orphan in orphans:
            try:
                pidfd = os.pidfd_open(orphan.pid)
            except ProcessLookupError:
                continue
            handles.callback(os.close, pidfd)
            # Checked after the pidfd was opened: it cannot be another process with that pid.
            if not is_alive(orphan.pid, orphan.started):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):  # polled below
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll.register(pidfd, select.POLLIN)
        poll.poll(_RECHECK_SECONDS * 1000)


def _carries(mark: str | None, wanted: str) -> bool:
    return mark is not None and (mark == wanted or mark.startswith(f"{wanted}#"))


def _processes() -> Iterator[tuple[int, _Seen]]:
    """Yield the pid of each living process of this user, with its facts."""
    user = os.geteuid()
    with os.scandir("/proc") as entries:
        folders = [entry for entry in entries if entry.name.isdecimal()]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if folder.stat().st_uid != user:
                continue
            pid = int(folder.name)
            fields = stat_fields(pid)
            if fields is not None and fields[0] not in b"ZX":
                yield pid, _Seen(int(fields[1]), int(fields[19]), _mark(pid))


def _mark(pid: int) -> str | None:
    prefix = f"{VARIABLE}=".encode()
    for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if variable.startswith(prefix):
            return variable[len(prefix) :].decode(errors="replace")
    return None
