"""Real time of the daemon itself: the settings, and how its process applies them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dorad.realtime import memory
from dorad.realtime.refusal import policy_refused, rights
from dorad.realtime.schedule import Schedule, set_policy

POLICIES = {"fifo": os.SCHED_FIFO, "rr": os.SCHED_RR, "other": os.SCHED_OTHER}
PRIORITY = 10
"""Below the priority of nodes: messages between nodes do not pass through the daemon."""


@dataclass(frozen=True, slots=True)
class RealtimeSettings:
    """The section `[realtime]` of the configuration."""

    enabled: bool = False
    """`dorad --rt` sets it, too; without it the other settings have no effect."""
    policy: str = "fifo"
    """`fifo`, `rr`, or `other` for memory and cores only."""
    priority: int = PRIORITY
    """1 to 99."""
    lock_memory: bool = True
    cpu_affinity: tuple[int, ...] = ()
    """Cores of the daemon; if empty, all. It does not apply to nodes."""


def apply(settings: RealtimeSettings) -> list[str]:
    """Apply the settings; return one line for each part that is refused, with a hint.

    The policy applies to the calling thread only: threads and processes that it starts do not
    inherit it. They do inherit the cores.
    """
    if not settings.enabled:
        return []
    lines = []
    if settings.cpu_affinity:
        lines += _pin(settings.cpu_affinity)
    wanted = Schedule(POLICIES[settings.policy], settings.priority)
    try:
        set_policy(wanted)
    except OSError as error:
        limit, nice = rights()
        lines.append(policy_refused(wanted, error.errno or 0, limit, nice=nice))
    if settings.lock_memory:
        missing = memory.lock()
        if missing is not None:
            lines.append(missing)
    return lines


def _pin(cores: tuple[int, ...]) -> list[str]:
    allowed = os.sched_getaffinity(0)
    usable = set(cores) & allowed
    if usable:
        os.sched_setaffinity(0, usable)
    missing = sorted(set(cores) - allowed)
    if not missing:
        return []
    lacking, usable_here = (", ".join(map(str, cores)) for cores in (missing, sorted(allowed)))
    return [f"cpu_affinity: this process may not use core {lacking}; it may use {usable_here}"]
