"""One transient unit, its process, and the state of its life."""

from __future__ import annotations

import asyncio
import os
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dorad.launch.model import Exit
    from dorad.launch.spawner import Process


@dataclass(slots=True, eq=False)
class Unit:
    """A transient unit; `process` is set once it has started."""

    name: str
    tag: str
    process: Process | None = None
    exit: Exit | None = None
    """How its main process ended; set before the rest of the unit is killed."""
    reaped: bool = False
    """Whether the rest of the unit has been killed, or is being killed."""
    forgotten: bool = False
    """Whether the unit may be released: the daemon has stored its exit, or need not."""
    helper: bool = False
    """Whether it is a helper, not a node: its failure is not shown."""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the start job has ended, with success or not."""
    start_result: str = ""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stop job has ended."""


def user_of(values: dict[str, Any]) -> int:
    """Return the uid of a unit's processes, from the properties of its service."""
    user = str(values.get("User", ""))
    if not user:
        return os.getuid()
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:  # the user was removed after the start
        return int(values.get("UID", -1))
