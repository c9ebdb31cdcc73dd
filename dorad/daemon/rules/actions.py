"""The actions that decisions return; the supervisor carries them out."""

from enum import StrEnum

from msgspec import Struct


class StopReason(StrEnum):
    """Why a node gets a STOP event; the id of that event."""

    MANUAL = "MANUAL"
    ALL_INPUTS_CLOSED = "ALL_INPUTS_CLOSED"


class OpenBarrier(Struct, frozen=True):
    """Let every `Node()` return."""


class AbortStart(Struct, frozen=True):
    """Let every `Node()` raise."""

    reason: str


class CloseInput(Struct, frozen=True):
    """Send INPUT_CLOSED; it arrives after the messages that are queued."""

    node: str
    input: str


class SendNodeFailed(Struct, frozen=True):
    """Send NODE_FAILED."""

    node: str
    source: str
    error: str
    inputs: tuple[str, ...]


class SendNodeRestarted(Struct, frozen=True):
    """Send NODE_RESTARTED."""

    node: str
    source: str


class Stop(Struct, frozen=True):
    """Send STOP."""

    node: str
    reason: StopReason
    operator: str | None = None
    """The operator to stop; None stops the whole node."""


class StopAll(Struct, frozen=True):
    """Start the stop ladder for every running node."""


class Finish(Struct, frozen=True):
    """End the dataflow: no node is left to wait for."""


Action = (
    OpenBarrier
    | AbortStart
    | CloseInput
    | SendNodeFailed
    | SendNodeRestarted
    | Stop
    | StopAll
    | Finish
)
