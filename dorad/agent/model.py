"""What the agent remembers of coordinators, and its own state."""

from typing import Literal

import msgspec

from dorad.control.messages.agent import Revocation, ShareState
from dorad.control.messages.releases import ReleaseState

ConnectionState = Literal["connecting", "connected", "refused", "unreachable"]


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
