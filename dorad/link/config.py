"""The configuration of a link process: its channels, and the addresses of other machines.

It comes over the process's connection, with the welcome and at each change: a variable of its
environment could be read by other processes of its user, and has an upper bound.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$(?!\n)")]
"""A machine or a dataflow, as one part of a key in Zenoh."""

Positive = Annotated[int, Meta(ge=1, le=1 << 40)]

MESSAGES = 64
BYTES = 4 << 20
MAX_SIZE = 1 << 30

MAX_MACHINES = 900
"""Machines that one process has links to: each takes a descriptor, of 1,024, and maybe a thread."""


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """The certificates with which both ends prove who they are: PEM in base64, as Zenoh takes it.

    They are contents, not paths: the process may not read the files, which belong to the agent.
    """

    ca: str
    certificate: str
    key: str
    verify_name: bool = True
    """Whether the address that is connected to must be one that the certificate names."""

    def __repr__(self) -> str:
        return "Tls(...)"  # the key does not belong in a log


class ChannelOut(Struct, frozen=True, forbid_unknown_fields=True):
    """One output that another machine receives. It may feed several inputs there."""

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
    connect_to: list[Name] = []
    """The machine at each address of `connect`, as far as that is known."""
    router: bool = False
    """Whether `connect` is a router through which all machines reach each other."""
    tls: Tls | None = None
    outgoing: list[ChannelOut] = []
    incoming: list[ChannelIn] = []

    @property
    def peers(self) -> list[str]:
        """The machines that this one exchanges messages with."""
        machines = [channel.machine for channel in self.outgoing]
        machines += [channel.machine for channel in self.incoming]
        return sorted(set(machines))


def decode(content: object) -> LinkConfig:
    """Return the configuration in a packet of the daemon.

    Raises:
        RuntimeError: it is not valid.
    """
    try:
        return msgspec.convert(content, LinkConfig)
    except msgspec.ValidationError as error:
        raise RuntimeError(f"the configuration of the link is not valid: {error}") from error
