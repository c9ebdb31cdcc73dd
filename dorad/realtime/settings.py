"""The section `[realtime]` of the configuration: real time of the daemon itself."""

from __future__ import annotations

from dataclasses import dataclass

PRIORITY = 10
"""Below the priority of nodes: messages between nodes do not pass through the daemon."""


@dataclass(frozen=True, slots=True)
class RealtimeSettings:
    """How the daemon itself runs."""

    enabled: bool = False
    """`dorad --rt` sets it, too; without it the other settings have no effect."""
    policy: str = "fifo"
    """`fifo`, `rr`, or `other` for memory and cores only."""
    priority: int = PRIORITY
    """1 to 99."""
    lock_memory: bool = True
    cpu_affinity: tuple[int, ...] = ()
    """Cores of the daemon; if empty, all. It does not apply to nodes."""
