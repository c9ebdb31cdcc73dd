"""What the configuration says of the daemon's own real time: the section `[realtime]`."""

from __future__ import annotations

from dataclasses import dataclass

PRIORITY = 10
"""Below that of nodes: the daemon takes no part in what passes between them."""


@dataclass(frozen=True, slots=True)
class RealtimeSettings:
    """How the daemon itself runs."""

    enabled: bool = False
    """`dorad --rt` sets it, too; the rest means nothing without."""
    policy: str = "fifo"
    """`fifo`, `rr`, or `other` for memory and cores only."""
    priority: int = PRIORITY
    """1 to 99."""
    lock_memory: bool = True
    cpu_affinity: tuple[int, ...] = ()
    """Cores that the daemon runs on; empty leaves it on all. Nodes are not bound by it."""
