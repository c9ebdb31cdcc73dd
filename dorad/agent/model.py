"""The agent's data: the order, run and end of each share, and the agent's own state."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import msgspec

from dorad.control.messages import DataflowInfo, DataflowState
from dorad.control.messages.agent import Revocation, ShareSet, ShareState
from dorad.control.messages.releases import ReleaseState

EndStatus = Literal["stopped", "finished", "failed"]
ConnectionState = Literal["connecting", "connected", "refused", "unreachable"]


class Begun(msgspec.Struct, frozen=True):
    """The run that dorad was last ordered to start, and the order that it follows."""

    uuid: str
    version: tuple[int, int]
    """Epoch and generation of the order."""
    digest: str
    """Of the order's content, and of the identity that its links use."""
    boot: str
    """The boot id of the machine when it was started."""
    previous: float | None = None
    """When an earlier run with this uuid, which had ended, was started."""
    ran: bool = False
    """Whether dorad has accepted the order."""
    trouble: str = ""
    """Why dorad refused to change the run to the order; the run continues unchanged."""


class Ended(msgspec.Struct, frozen=True):
    """The outcome of an order."""

    status: EndStatus
    since: float
    reason: str = ""
    outcome: DataflowState | None = None


class ShareRecord(msgspec.Struct, frozen=True):
    """A share as it is stored."""

    order: ShareSet
    boot: str
    """The boot id of the machine when the order arrived."""
    begun: Begun | None = None
    ended: Ended | None = None
    """None while there is something to do for the order."""
    opens: bool = False
    """Whether this robot opens the start barrier itself, at each start: see `BARRIER_S`."""

    @property
    def version(self) -> tuple[int, int]:
        """Epoch and generation of the order."""
        return self.order.epoch, self.order.generation

    def same_order(self, order: ShareSet) -> bool:
        """Return True if an order is that of the record, possibly in another coordinator's term."""
        own = self.order
        return (own.generation, own.content.uuid, own.enabled) == (
            order.generation,
            order.content.uuid,
            order.enabled,
        )

    @property
    def started(self) -> bool:
        """Whether dorad was ordered to start or change a run for the order."""
        begun = self.begun
        return begun is not None and begun.version == self.version

    def followed(self, identity: str) -> bool:
        """Return True if the run that was begun has the order's content, and this identity."""
        begun = self.begun
        return (
            begun is not None and self.started and begun.digest == digest_of(self.order, identity)
        )


class Memory(msgspec.Struct, frozen=True):
    """What a robot remembers of the coordinators that it has obeyed."""

    fleet: str = ""
    """Of the enrolment that `epoch` and `term` are about; see `Identity`."""
    epoch: int = 0
    """The number of the last term that was obeyed."""
    term: str = ""
    """Its random text; empty if it was a coordinator that did not count terms."""
    authority: str = ""
    """Whose coordinators have sent `audit`; see `Identity`."""
    audit: str = ""
    """The highest head of the audit that is not contradicted; empty if there is none."""
    revocations: list[Revocation] = []
    """Those that came with it."""


class Present(NamedTuple):
    """What may have changed since a run was begun."""

    boot: str
    """The boot id of the machine."""
    identity: str
    """Changes with the key and the certificate."""


class Run(msgspec.Struct, frozen=True):
    """What dorad knows of one uuid."""

    info: DataflowInfo
    state: DataflowState | None = None
    """None as long as not every node has a process."""
    waited: float = 0.0
    """Seconds that it starts already, as far as this agent knows; 0 once its barrier is open."""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.info.active

    @property
    def ready(self) -> bool:
        """Whether only `dataflow.open` is missing."""
        return self.state is not None and self.state.ready


class ConnectionStatus(msgspec.Struct, frozen=True):
    """The state of the connection to the coordinator."""

    state: ConnectionState
    coordinator: str
    """The address of the last attempt."""
    since: float
    reason: str = ""
    """Why it is not connected."""


class AgentStatus(msgspec.Struct, frozen=True):
    """The state of the agent, for `dorad-agent status`."""

    version: str
    pid: int
    ticks: int
    """When the process started, in clock ticks from boot: its pid may be reused."""
    robot: str
    started_at: float
    connection: ConnectionStatus
    epoch: int
    daemon: str
    """Why dorad cannot be used; empty if it can."""
    shares: list[ShareState]
    releases: list[ReleaseState] = []
    notice: str = ""
    """What the operator should know: that a damaged store was replaced, or the disk is full."""

    @property
    def line(self) -> str:
        """The state in one line."""
        connection = self.connection
        where = f"{connection.state} {connection.coordinator}".strip()
        parts = [f"robot {self.robot}", where + (connection.reason and f": {connection.reason}")]
        parts.append(f"{len(self.shares)} share{'' if len(self.shares) == 1 else 's'}")
        if self.releases:
            parts.append(f"{len(self.releases)} from releases")
        if self.daemon:
            parts.append(f"dorad cannot be used: {self.daemon}")
        if self.notice:
            parts.append(self.notice)
        return "; ".join(parts)


def digest_of(order: ShareSet, identity: str) -> str:
    """Return the SHA-256 of an order's content, with the robot's identity if it has links."""
    digest = hashlib.sha256(msgspec.json.encode(order.content))
    share = order.content.share
    if share.listen or share.connect:
        digest.update(identity.encode())
    return digest.hexdigest()
