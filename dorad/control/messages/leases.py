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
    """Seconds until the lease ends, at most 86400. `lease.take` needs it, `lease.hold` refuses
    it."""


class LeaseRef(Struct):
    """End a lease that was taken for some time."""

    id: str


class LeaseList(Struct):
    """All leases, the oldest first."""

    leases: list[Lease]


MAX_RESERVED_S = 60.0
"""Maximum time of a reservation, in seconds."""


class LeaseReserve(Struct):
    """Refuse new leases for some seconds, unless the robot has leases.

    A robot's agent asks for this before it switches to a release.
    """

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    """What the reservation is for. A second request with the same key does not extend it."""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_RESERVED_S)]
    """At most 60; 0 ends the reservation."""


class Reservation(Struct):
    """How long the daemon refuses new leases."""

    left: float
    """Seconds. 0 if the reservation is over, or if the robot has leases."""
    leases: list[Lease] = []


LEASE_LIST = CallMethod(
    "lease.list",
    "viewer",
    Nothing,
    LeaseList,
    "List leases: what must not be interrupted on this robot.",
)
LEASE_TAKE = CallMethod("lease.take", "operator", LeaseTake, Lease, "Take a lease for some time.")
LEASE_HOLD = StreamMethod(
    "lease.hold", "operator", LeaseTake, Lease, "Hold a lease as long as the stream is open."
)
LEASE_END = CallMethod(
    "lease.end", "operator", LeaseRef, Nothing, "End a lease that was taken for some time."
)
LEASE_RESERVE = CallMethod(
    "lease.reserve",
    "operator",
    LeaseReserve,
    Reservation,
    "Refuse new leases for some seconds, unless the robot has leases.",
)
