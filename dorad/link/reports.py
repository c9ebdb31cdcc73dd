"""The reports of a link process over its connection to the daemon: packets `link {report}`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dorad.link.frames import EventKind

MAX_COUNT = (1 << 63) - 1
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Text = Annotated[str, Meta(max_length=4096)]
Id = Annotated[str, Meta(max_length=512)]

MAX_CHANNELS = 50
"""Channels of one status: it must fit into a packet."""


class PeerStatus(Struct, frozen=True):
    """The state of the link to one machine."""

    state: Literal["absent", "greeting", "up", "refused"]
    reason: Text
    """Why it is not up; empty if it is."""
    round_trip_us: Count | None = None
    """The time of a greeting and its answer."""
    clock_us: Annotated[int, Meta(ge=-MAX_COUNT, le=MAX_COUNT)] | None = None
    """How far its clock is ahead of ours, true within `clock_margin_us`; None while unknown."""
    clock_margin_us: Count = 0


class OutStatus(Struct, frozen=True):
    """The counters of an outgoing channel; see `Outgoing`. The last two are of about a second.

    A link process of an earlier version, which may run on after an upgrade, does not report them.
    """

    name: Id
    machine: Id
    open: bool
    sent: Count
    repeated: Count
    lost: Count
    uncertain: Count
    on_the_way: Count
    bytes_on_the_way: Count
    bytes_per_s: Count | None = None
    wait: Percent = 0
    """How much of the time messages waited for acknowledgements of earlier ones."""


class InStatus(Struct, frozen=True):
    """The counters of an incoming channel; see `Incoming`."""

    name: Id
    machine: Id
    received: Count
    queued: Count
    """Messages that wait for room in the queue of a node."""
    latency_us: Count | None
    """From sending to delivery, averaged since the last status; as good as both clocks agree."""


class Status(Struct, frozen=True, tag="status", tag_field="kind"):
    """The state of links and channels, of some of them if there are many.

    All are sent every second, and when a peer changes.
    """

    peers: dict[Id, PeerStatus]
    outgoing: Annotated[list[OutStatus], Meta(max_length=MAX_CHANNELS)]
    incoming: Annotated[list[InStatus], Meta(max_length=MAX_CHANNELS)]
    strangers: Text = ""
    """What the gate has closed lately, beside `peers`; empty if it has closed nothing."""


class ChannelEvent(Struct, frozen=True, tag="event", tag_field="kind"):
    """An event of the source of an incoming channel.

    `closed` comes after all its messages.
    """

    name: Id
    machine: Id
    event: Literal["closed", "failed", "restarted"]
    text: Text


EVENTS: dict[EventKind, Literal["closed", "failed", "restarted"]] = {
    EventKind.CLOSED: "closed",
    EventKind.FAILED: "failed",
    EventKind.RESTARTED: "restarted",
}


def decode(report: object) -> Status | ChannelEvent:
    """Return the report in a packet. Raises ValueError if it is none."""
    try:
        return msgspec.convert(report, Status | ChannelEvent)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a report of a link: {error}") from error
