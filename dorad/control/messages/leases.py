"""Messages about leases: what on a robot must not be interrupted by a switch to a new release."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.method import CallMethod, StreamMethod
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


LEASE_LIST = CallMethod(
    "lease.list", "viewer", Nothing, LeaseList, "List what must not be interrupted."
)
LEASE_TAKE = CallMethod("lease.take", "operator", LeaseTake, Lease, "Take a lease for some time.")
LEASE_HOLD = StreamMethod(
    "lease.hold", "operator", LeaseTake, Lease, "Hold a lease as long as the stream is open."
)
LEASE_END = CallMethod(
    "lease.end", "operator", LeaseRef, Nothing, "End a lease that was taken for some time."
)
