"""The quality of service that a bridge asks for: what the file says, else what fits the peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEPTH = 100
"""Messages kept where the file names no depth. dora keeps one, so that it loses any burst."""


@dataclass(frozen=True, slots=True)
class Profile:
    """All policies of one publisher or subscription."""

    reliable: bool
    transient_local: bool
    depth: int | None
    """0 keeps all. None for a peer: it is not known to others."""
    liveliness: str
    lease_s: float | None
    """None for no limit."""

    def __str__(self) -> str:
        words = [
            "reliable" if self.reliable else "best effort",
            "transient_local" if self.transient_local else "volatile",
        ]
        if self.depth is not None:
            words.append(f"keep_last {self.depth}" if self.depth else "keep_all")
        if self.liveliness != "automatic" or self.lease_s is not None:
            words.append(f"liveliness {self.liveliness}, lease {self.lease_s} s")
        return ", ".join(words)


def offered(declared: Mapping[str, Any]) -> Profile:
    """Return the profile of a publisher: reliable, which every subscription accepts."""
    return _profile(declared, reliable=True, transient_local=False)


def requested(declared: Mapping[str, Any], publishers: Sequence[Profile]) -> Profile:
    """Return the profile of a subscription: the strictest that all its publishers meet.

    Without any it is reliable and volatile.
    """
    return _profile(
        declared,
        reliable=all(each.reliable for each in publishers),
        transient_local=bool(publishers) and all(each.transient_local for each in publishers),
    )


def fits(offer: Profile, request: Profile) -> bool:
    """Return False if a publisher is known to offer less than a subscription requests."""
    return (offer.reliable or not request.reliable) and (
        offer.transient_local or not request.transient_local
    )


def _profile(declared: Mapping[str, Any], *, reliable: bool, transient_local: bool) -> Profile:
    if (given := declared.get("reliable")) is not None:
        reliable = given
    if (durability := declared.get("durability")) is not None:
        transient_local = durability == "transient_local"
    return Profile(
        reliable,
        transient_local,
        0 if declared.get("keep_all") else declared.get("keep_last") or DEPTH,
        declared.get("liveliness") or "automatic",
        declared.get("lease_duration"),
    )


def to_rclpy(profile: Profile) -> Any:
    """Return the QoSProfile of rclpy."""
    from rclpy import qos
    from rclpy.duration import Duration

    lease = None if profile.lease_s is None else Duration(nanoseconds=int(profile.lease_s * 1e9))
    return qos.QoSProfile(
        history=qos.HistoryPolicy.KEEP_LAST if profile.depth else qos.HistoryPolicy.KEEP_ALL,
        depth=profile.depth,
        reliability=(
            qos.ReliabilityPolicy.RELIABLE
            if profile.reliable
            else qos.ReliabilityPolicy.BEST_EFFORT
        ),
        durability=(
            qos.DurabilityPolicy.TRANSIENT_LOCAL
            if profile.transient_local
            else qos.DurabilityPolicy.VOLATILE
        ),
        liveliness=(
            qos.LivelinessPolicy.MANUAL_BY_TOPIC
            if profile.liveliness == "manual_by_topic"
            else qos.LivelinessPolicy.AUTOMATIC
        ),
        # Jazzy takes no None.
        **({} if lease is None else {"liveliness_lease_duration": lease}),
    )


def from_rclpy(profile: Any) -> Profile:
    """Return the policies of a peer that was discovered."""
    from rclpy import qos

    return Profile(
        profile.reliability == qos.ReliabilityPolicy.RELIABLE,
        profile.durability == qos.DurabilityPolicy.TRANSIENT_LOCAL,
        None,
        profile.liveliness.name.lower(),
        None,
    )


def policy_name(kind: Any) -> str:
    """Return the name of a policy that does not fit, as the file has it."""
    return str(kind).lower().rpartition("policy_")[2].rpartition(".")[2]
