"""What a link process is told when it starts, and what it tells: JSON lines, checked on the way in.

The first line on standard input is a `LinkConfig`. Every line on standard output is a `Status` or a
`Happened`.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dorad.link.frames import EventKind

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
"""A machine or a dataflow, as one part of a key in Zenoh."""

MAX_CONFIG = 1 << 24
"""Bytes of the line with the configuration."""

Positive = Annotated[int, Meta(ge=1, le=1 << 40)]

MESSAGES = 64
BYTES = 4 << 20
MAX_SIZE = 1 << 30


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """Files of the certificates with which both ends prove who they are."""

    ca: str
    certificate: str
    key: str
    verify_name: bool = True
    """Whether the address that is connected to must be one that the certificate names."""


class ChannelOut(Struct, frozen=True, forbid_unknown_fields=True):
    """One output that a machine receives, however many inputs it feeds there."""

    name: str
    """`node/output`; the same at both ends."""
    machine: Name
    input: str
    """The input of the link process that the output feeds."""
    reliable: bool = False
    """Whether a message is kept until the other machine has it."""


class ChannelIn(Struct, frozen=True, forbid_unknown_fields=True):
    """One output of another machine that this one receives."""

    name: str
    machine: Name
    output: str
    """The output of the link process that feeds the inputs here."""
    messages: Positive = MESSAGES
    bytes: Positive = BYTES
    """The credit that the sender gets."""
    max_size: Positive = MAX_SIZE
    """Bytes of the largest message that is accepted."""


class LinkConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a link process needs. Addresses are as in Zenoh: `tls/192.168.1.7:7447`."""

    dataflow: Name
    machine: Name
    listen: list[str] = []
    connect: list[str] = []
    tls: Tls | None = None
    outgoing: list[ChannelOut] = []
    incoming: list[ChannelIn] = []

    @property
    def peers(self) -> list[str]:
        """The machines that this one exchanges messages with."""
        machines = [channel.machine for channel in self.outgoing]
        machines += [channel.machine for channel in self.incoming]
        return sorted(set(machines))


class PeerStatus(Struct, frozen=True):
    """The state of the link to one machine."""

    state: Literal["absent", "greeting", "up", "refused"]
    reason: str
    """Why it is not up; empty if it is."""
    round_trip_us: int | None = None
    """The time of a greeting and its answer."""


class OutStatus(Struct, frozen=True):
    """The counters of an outgoing channel; see `Outgoing`."""

    name: str
    machine: str
    open: bool
    sent: int
    repeated: int
    lost: int
    uncertain: int
    on_the_way: int
    bytes_on_the_way: int


class InStatus(Struct, frozen=True):
    """The counters of an incoming channel; see `Incoming`."""

    name: str
    machine: str
    received: int
    lost: int
    restarts: int
    queued: int
    """Messages that wait for room in the queue of a node."""
    undelivered: int
    """Messages for which there was no memory."""
    latency_us: int | None
    """From sending to delivery, averaged since the last status; as good as both clocks agree."""


class Status(Struct, frozen=True, tag="status", tag_field="kind"):
    """The state of all links and channels; sent every second and when a peer changes."""

    peers: dict[str, PeerStatus]
    outgoing: list[OutStatus]
    incoming: list[InStatus]


class Happened(Struct, frozen=True, tag="event", tag_field="kind"):
    """Something that has happened to the source of an incoming channel.

    `closed` comes after all its messages.
    """

    name: str
    machine: str
    event: Literal["closed", "failed", "restarted"]
    text: str


EVENTS: dict[EventKind, Literal["closed", "failed", "restarted"]] = {
    EventKind.CLOSED: "closed",
    EventKind.FAILED: "failed",
    EventKind.RESTARTED: "restarted",
}


def read_config(descriptor: int) -> LinkConfig:
    """Return the configuration from the first line of a descriptor.

    Raises:
        RuntimeError: the line is too long or not a configuration.
    """
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_CONFIG:
        byte = os.read(descriptor, 1)  # no more than the line: what follows is for others
        if not byte:
            break
        line += byte
    try:
        return msgspec.json.decode(bytes(line), type=LinkConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RuntimeError(f"the configuration of the link is not valid: {error}") from error
