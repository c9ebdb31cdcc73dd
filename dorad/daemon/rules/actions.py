"""What the daemon is to do: the vocabulary in which the pure decisions are written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StopReason(StrEnum):
    """The id of a STOP event."""

    MANUAL = "MANUAL"
    ALL_INPUTS_CLOSED = "ALL_INPUTS_CLOSED"


@dataclass(frozen=True, slots=True)
class OpenBarrier:
    """Let every `Node()` return."""


@dataclass(frozen=True, slots=True)
class Poison:
    """Let every `Node()` raise."""

    reason: str


@dataclass(frozen=True, slots=True)
class CloseInput:
    """Send INPUT_CLOSED, after whatever is still queued."""

    node: str
    input: str


@dataclass(frozen=True, slots=True)
class TellFailed:
    """Send NODE_FAILED."""

    node: str
    source: str
    error: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TellRestarted:
    """Send NODE_RESTARTED."""

    node: str
    source: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Send STOP."""

    node: str
    reason: StopReason
    operator: str | None = None
    """Which operator of the node is meant; None is all of it."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """Begin the stop ladder for every node that still runs."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to wait for: the dataflow has ended."""


Action = OpenBarrier | Poison | CloseInput | TellFailed | TellRestarted | Stop | StopAll | Finish
