"""What the daemon is to do: the vocabulary in which the pure decisions are written."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class StopReason(StrEnum):
    """The id of a STOP event."""

    MANUAL = "MANUAL"
    ALL_INPUTS_CLOSED = "ALL_INPUTS_CLOSED"


class OpenBarrier(Struct, frozen=True):
    """Let every `Node()` return."""


class AbortStart(Struct, frozen=True):
    """Let every `Node()` raise."""

    reason: str


class CloseInput(Struct, frozen=True):
    """Send INPUT_CLOSED, after whatever is still queued."""

    node: str
    input: str


class TellFailed(Struct, frozen=True):
    """Send NODE_FAILED."""

    node: str
    source: str
    error: str
    inputs: tuple[str, ...]


class TellRestarted(Struct, frozen=True):
    """Send NODE_RESTARTED."""

    node: str
    source: str


class Stop(Struct, frozen=True):
    """Send STOP."""

    node: str
    reason: StopReason
    operator: str | None = None
    """Which operator of the node is meant; None is all of it."""


class StopAll(Struct, frozen=True):
    """Begin the stop ladder for every node that still runs."""


class Finish(Struct, frozen=True):
    """Nothing is left to wait for: the dataflow has ended."""


Action = (
    OpenBarrier | AbortStart | CloseInput | TellFailed | TellRestarted | Stop | StopAll | Finish
)
