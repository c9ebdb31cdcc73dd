"""Finding and ending what a daemon has left behind when its keeper or its state is gone.

A daemon marks its nodes with the variable DORA_DAEMON, which all that they start inherits. Its
value is the daemon's mark, or `<mark>#<more>`, say a dataflow's id: both `find("m")` and
`find("m#flow")` find a process with `m#flow`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from dorad.launch import stat
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

VARIABLE = "DORA_DAEMON"
_RECHECK_SECONDS = 0.02
_WATCHED = 256
"""Processes ended at a time; each takes a descriptor."""


class Orphan(Struct, frozen=True):
    """A process that nobody looks after any more."""

    pid: int
    started: int
    """In clock ticks since boot; tells it from a later process with the same pid."""


class _Seen(Struct, frozen=True):
    parent: int
    started: int
    mark: str | None


def find(mark: str, spare: Collection[int] = ()) -> list[Orphan]:
    """Return this user's processes that carry `mark`, and all below them. Blocks a little.

    Not those in `spare` (pids: a keeper's, say) and below them, nor this process's own, nor those
    that another daemon has marked.
    """
    seen = _look()
    below: dict[int, list[int]] = {}
    for pid, process in seen.items():
        below.setdefault(process.parent, []).append(pid)

    def family(roots: Collection[int], stop: Collection[int]) -> set[int]:
        found: set[int] = set()
        heads = [pid for pid in roots if pid not in stop]
        while heads:
            pid = heads.pop()
            if pid not in found:
                found.add(pid)
                heads += [child for child in below.get(pid, ()) if child not in stop]
        return found

    ours = {pid for pid, process in seen.items() if _carries(process.mark, mark)}
    others = {pid for pid, process in seen.items() if process.mark is not None} - ours
    spared = family({os.getpid(), *spare}, ())
    return [Orphan(pid, seen[pid].started) for pid in family(ours, others | spared) if pid in seen]


def end(mark: str, spare: Collection[int] = (), seconds: float = 10.0) -> list[Orphan]:
    """SIGKILL what `find` finds until nothing is left; return all of it. Blocks.

    Raises:
        LaunchError: some are still there after `seconds`.
    """
    give_up_at = time.monotonic() + seconds
    ended: set[Orphan] = set()
    while orphans := find(mark, spare):
        if time.monotonic() > give_up_at:
            pids = ", ".join(str(orphan.pid) for orphan in orphans[:10])
            raise LaunchError(f"processes left by an earlier dorad cannot be ended: {pids}")
        ended.update(orphans)
        _kill(orphans[:_WATCHED])
    return sorted(ended, key=lambda orphan: orphan.pid)


def _kill(orphans: list[Orphan]) -> None:
    """SIGKILL these, and give them a moment to be gone."""
    poll = select.poll()
    with contextlib.ExitStack() as handles:
        for orphan in orphans:
            try:
                pidfd = os.pidfd_open(orphan.pid)
            except ProcessLookupError:
                continue
            handles.callback(os.close, pidfd)
            # Looked at after it was opened, so what is signalled is what was looked at.
            if not stat.is_alive(orphan.pid, orphan.started):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll.register(pidfd, select.POLLIN)
        poll.poll(_RECHECK_SECONDS * 1000)


def _carries(mark: str | None, wanted: str) -> bool:
    return mark is not None and (mark == wanted or mark.startswith(f"{wanted}#"))


def _look() -> Mapping[int, _Seen]:
    """Return all living processes of this user."""
    return dict(_processes())


def _processes() -> Iterator[tuple[int, _Seen]]:
    user = os.geteuid()
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if os.stat(f"/proc/{pid}").st_uid != user:  # noqa: PTH116 - of hundreds, often
                continue
            fields = stat.fields(pid)
            if fields is not None and fields[0] not in b"ZX":
                yield pid, _Seen(int(fields[1]), int(fields[19]), _mark(pid))


def _mark(pid: int) -> str | None:
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        variables = file.read().split(b"\0")
    prefix = f"{VARIABLE}=".encode()
    for variable in variables:
        if variable.startswith(prefix):
            return variable[len(prefix) :].decode(errors="replace")
    return None
