"""Messages about leases: what on a robot must not be interrupted by a switch to a new release."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dorad.control.messages.base import Struct
from dorad.control.messages.releases import Lease

MAX_TTL_S = 24 * 3600.0
"""Maximum time to live of a lease that no process holds, in seconds."""

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class LeaseTake(Struct):
    """Take a lease: for `ttl` seconds, or as long as the stream of its answer is open."""

    reason: Reason
    ttl: float | None = None


class LeaseRef(Struct):
    """One lease."""

    id: str


class LeaseList(Struct):
    """All leases, the oldest first."""

    leases: list[Lease]
