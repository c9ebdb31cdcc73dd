"""One unit of the host's: a process that was started, and what is known of its end."""

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
    """A transient unit; `process` is there once it has been started."""

    name: str
    tag: str
    process: Process | None = None
    exit: Exit | None = None
    """How its main process ended, before what it left behind is ended, too."""
    buried: bool = False
    """Whether what is left of it is ended, or just being."""
    forgotten: bool = False
    """Its end is written down, or will be: it may be released."""
    helper: bool = False
    """Whether it is no node: nobody looks for its failure."""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when systemd has done, or given up, what it was asked for."""
    start_result: str = ""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stop job is done."""


def user_of(values: dict[str, Any]) -> int:
    """Return the uid of a unit's processes, from the properties of its service."""
    user = str(values.get("User", ""))
    if not user:
        return os.getuid()
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:  # removed since it was started
        return int(values.get("UID", -1))
