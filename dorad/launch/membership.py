"""Check whether a process belongs to a node: to its unit, or to its process tree."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.procinfo import is_alive, parent_of, start_time

if TYPE_CHECKING:
    from dorad.launch.spawner import Process

_HIERARCHIES = ("", "name=systemd")
"""Control groups v2; and the v1 hierarchy that systemd uses for units where v2 is not used."""

_log = logging.getLogger(__name__)


def belongs(pid: int, process: Process, mark: tuple[str, str]) -> bool:
    """Return True if process `pid` is `process`, or was started by it.

    With a unit: it is in the unit's control group, which no process can leave. Without one: it is
    a descendant. Orphaned descendants are children of the process holder; they are recognized by
    `mark`, a variable and its value that only this node's processes have.
    """
    if process.exit is not None:
        return False
    if process.control_group is not None:
        own = process.control_group
        groups = control_groups(pid)
        _log.debug("process %d is in %s, the unit is %s", pid, groups, own)
        return bool(own) and any(each == own or each.startswith(f"{own}/") for each in groups)
    if not is_alive(process.pid, process.started):
        return False
    line = lineage(pid)
    _log.debug("process %d has the ancestors %s, the node is %d", pid, line[1:], process.pid)
    if process.pid in line:
        return True
    parent = parent_of(process.pid)
    if parent not in line[1:]:
        return False
    # Two checks on the oldest ancestor below the holder:
    # 1. Its mark is this node's. Otherwise another node has started it.
    # 2. It is younger than `process`. Otherwise an earlier process of this node has left it.
    orphan = line[line.index(parent) - 1]
    is_younger = (start_time(orphan) or 0) >= process.started
    return is_younger and _environ(orphan).get(mark[0]) == mark[1]


def control_groups(pid: int) -> list[str]:
    """Return the control groups of a process that may be its unit's; none if it has ended."""
    try:
        return groups_in(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def groups_in(text: str) -> list[str]:
    """Return, from the text of a /proc/PID/cgroup, the paths in the hierarchies systemd may use.

    A machine may have both, and a container may use a different one from its host. In both, an
    unprivileged process can neither leave its group nor create one outside its own.
    """
    groups = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in _HIERARCHIES:
            groups.append(path)
    return groups


def lineage(pid: int) -> list[int]:
    """Return a process and its ancestors, the oldest last; empty if it has ended."""
    line: list[int] = []
    while pid > 0 and pid not in line:
        parent = parent_of(pid)
        if parent is None:
            break
        line.append(pid)
        pid = parent
    return line


def _environ(pid: int) -> dict[str, str]:
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        _log.debug("cannot read the environment of process %d: %s", pid, error)
        return {}
    pairs = (item.partition(b"=") for item in data.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
