"""The state of a dataflow's broker that the next daemon needs besides descriptors, as JSON."""

from typing import Any

from msgspec import Struct, field


class RingSnapshot(Struct, array_like=True):
    """One ring of a mailbox; the numbers of `plan` are those of `layout.RingPlan`, in order."""

    name: str
    input: str
    first: int
    latched: bool
    plan: list[int]


class MailboxSnapshot(Struct, omit_defaults=True):
    """The layout of one mailbox.

    `retiring` lists (input, offset) of rings that are being retired or were free. Their place is
    not used again, because the snapshot may be older than their last change.
    """

    size: int
    end: int
    rings: list[RingSnapshot]
    retiring: list[tuple[str, int]] = []


class SegmentSnapshot(Struct, array_like=True):
    """A segment that outlives its process, until `heads`: (node, ring, messages sent)."""

    number: int
    heads: list[tuple[str, str, int]]


class HandoverSnapshot(Struct, omit_defaults=True):
    """The handovers in progress, and the hazard slots that replaced processes still hold."""

    open: dict[str, dict[str, str]] = {}
    """By node: the rings that only the replacement has, by input."""
    slots: dict[int, tuple[str, list[int]]] = {}
    """By pid: the node and its hazard slots."""


class BrokerSnapshot(Struct, omit_defaults=True):
    """The state of one dataflow's broker. Observers are not part of it."""

    epoch_ns: int | None = None
    abort_reason: str | None = None
    refused: list[str] = []
    exited: list[str] = []
    ended_operators: list[tuple[str, str]] = []
    conditions: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    restarts: dict[str, int] = {}
    params: dict[str, dict[str, Any]] = {}
    boxes: dict[str, MailboxSnapshot] = {}
    edges: list[tuple[str, str, str, str, str, bool, bool]] = []
    attached: dict[str, int] = {}
    """By node: the pid of the process that has its place."""
    versions: dict[int, int] = {}
    """By pid of a process that has a place or waits for one: the version that it speaks."""
    next_segment: int = 1
    orphans: list[SegmentSnapshot] = []
    handovers: HandoverSnapshot = field(default_factory=HandoverSnapshot)
    leases: dict[str, list[tuple[int, str, float]]] = {}
    """By node: number, reason and time of each lease."""
