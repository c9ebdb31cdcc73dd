"""Node health: a healthy node uses the API, or waits for input and answers pings."""

from typing import NamedTuple

from msgspec import Struct


class Vitals(NamedTuple):
    """Signs of life of a node's process, from its shared memory and its connection.

    It is `connected` if it has a `Node` and the start barrier has opened for it, `asleep` while it
    blocks until an event arrives. `pulse` changes whenever it enters or leaves the API; with a
    health check also ten times a second while it waits for room. `unread` is True if packets from
    the daemon wait in its socket. `queued` counts waiting messages that an idle process takes at
    once, `stamps_refused` timestamps too far ahead of its clock.
    """

    connected: bool
    asleep: bool
    pulse: int
    unread: bool
    queued: int
    stamps_refused: int = 0


class Health(Struct, frozen=True):
    """Result of the health checks of a node so far; times in monotonic seconds."""

    pulse: int
    healthy_at: float
    """When it was last found healthy."""

    def silent_for(self, now: float) -> float:
        """Return the seconds since it was last found healthy."""
        return now - self.healthy_at


def health_after(
    before: Health | None, vitals: Vitals, now: float, *, sigstopped: bool = False
) -> Health:
    """Return the health after a check of a node that has called `Node()`.

    A node is healthy if its pulse has changed since the last check, or if it is at rest: it waits
    for input, nothing is queued, it has read all packets, and no signal has stopped it. A node
    that has dropped its `Node` is not healthy; it should exit.
    The caller sends a ping now and then: only a node that reads it proves that it would wake.
    """
    if before is not None and not vitals.connected:
        return before
    if before is None or vitals.pulse != before.pulse or (at_rest(vitals) and not sigstopped):
        return Health(vitals.pulse, now)
    return before


class Presence(Struct, frozen=True):
    """When a node without a health check last used the node API, as far as is known."""

    called_at: float
    asked_at: float | None = None
    """When a ping was sent since, which its next call reads; None if none was."""

    def silent_for(self, now: float) -> float:
        """Return the seconds since it last used the API."""
        return now - self.called_at


def presence_after(
    before: Presence | None, vitals: Vitals, now: float, *, ask_after: float
) -> Presence:
    """Return the presence after a check of a node that has called `Node()`.

    A node at rest is present. So is one that has read its packets since it was asked: each call
    does. Another one is asked after `ask_after` seconds: the caller sends a ping when `asked_at` is
    set.
    """
    if before is None or at_rest(vitals) or (before.asked_at is not None and not vitals.unread):
        return Presence(now)
    if before.asked_at is None and before.silent_for(now) >= ask_after:
        return Presence(before.called_at, now)
    return before


def at_rest(vitals: Vitals) -> bool:
    """Return True if a node waits for input and has nothing to read."""
    return vitals.asleep and not vitals.queued and not vitals.unread
