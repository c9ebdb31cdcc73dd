"""Whether a process belongs to one that was started: to its unit, or to its process tree."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.launch.stat import fields, is_alive, start_time

if TYPE_CHECKING:
    from dorad.launch.spawner import Process

_SYSTEMD = "name=systemd"
"""The hierarchy of control groups v1 that systemd keeps its units in, on hosts that have it."""

_log = logging.getLogger(__name__)


def belongs(pid: int, process: Process, mark: tuple[str, str]) -> bool:
    """Return True if process `pid` is part of what `process` has started, or is that itself.

    A unit's processes are those in its control group, which no process can leave. Without units
    they are the descendants; `mark` is a variable and its value that only they have, and tells
    those whose own parent has ended: they have become children of the guard or keeper.
    """
    if process.exit is not None:
        return False
    if process.control_group is not None:
        own, group = process.control_group, control_group(pid)
        return bool(own) and (group == own or group.startswith(f"{own}/"))
    if not is_alive(process.pid, process.started):
        return False
    line = lineage(pid)
    if process.pid in line:
        return True
    parent = _parent(process.pid)
    if parent not in line[1:]:
        return False
    # Not one that another node has started: its oldest ancestor would have that node's mark. Nor
    # one that an earlier process of this node has left: it would be older.
    orphan = line[line.index(parent) - 1]
    is_younger = (start_time(orphan) or 0) >= process.started
    return is_younger and _environ(orphan).get(mark[0]) == mark[1]


def control_group(pid: int) -> str:
    """Return the path of a process's control group as systemd names it; empty if it is gone."""
    try:
        return group_in(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return ""


def group_in(text: str) -> str:
    """Return the path of systemd's hierarchy in the text of a /proc/PID/cgroup."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found[controllers] = path
    return found.get(_SYSTEMD, found.get("", ""))


def lineage(pid: int) -> list[int]:
    """Return a process and its ancestors, the oldest last; empty if it is gone."""
    line: list[int] = []
    while pid > 0 and pid not in line:
        found = fields(pid)
        if found is None:
            break
        line.append(pid)
        pid = int(found[1])
    return line


def _parent(pid: int) -> int:
    found = fields(pid)
    return 0 if found is None else int(found[1])


def _environ(pid: int) -> dict[str, str]:
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        _log.debug("cannot read the environment of process %d: %s", pid, error)
        return {}
    pairs = (item.partition(b"=") for item in data.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
