"""The meaning of a process's exit: success, failure, or a consequence of a failure."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Any

from msgspec import Struct

from dorad.launch.model import Exit

MAX_LINES = 50
MAX_CHARACTERS = 2000
"""Lines of a node's stderr, and characters of a line, that are stored for the next daemon."""
CLEAN_EXIT = "exited with code 0"
NOT_STARTED = (
    "did not call Node() before the dataflow was stopped "
    "(it never calls it, or hangs or takes too long before; `startup_timeout` limits that)"
)
NOT_LAUNCHED = "was not started before the dataflow was stopped"
RESTARTED = "was restarted by a command"
REPLACED = "was replaced by a command"
"""How a process ended, in words that follow the node's name."""
ORDERED = frozenset({RESTARTED, REPLACED})


class Outcome(StrEnum):
    """How a node ended."""

    OK = "ok"
    FAILED = "failed"
    GRACE = "grace"
    """It had to be killed because it did not end within its grace."""
    CASCADING = "cascading"
    """It could not take part because another node ended before it called `Node()`."""


class ExitContext(Struct, frozen=True):
    """The daemon's knowledge about a process when it exits."""

    stopping: bool = False
    """The daemon was stopping it."""
    forced_reason: str = ""
    """Why the daemon ended it by a signal that counts as a failure; empty if it did not."""
    watchdog_reason: str = ""
    """Why a watchdog killed it; empty if none did."""
    root_cause: str | None = None
    """The other node whose early end aborted the start, if there is one."""
    refused: bool = False
    """Its `Node()` has raised, or will, because the start was aborted."""
    awaited: bool = False
    """The dataflow was stopped while its start waited for this node to call `Node()`, which it
    never did, or too late for the time that the dataflow had to run."""


class Result(Struct, frozen=True):
    """How one node ended, and why."""

    node: str
    outcome: Outcome
    exit: Exit | None
    """None if its process could not be started."""
    reason: str
    """Words that follow the node's name: `exited with code 1`."""
    root_cause: str | None = None
    """The other node whose early end aborted the start, if it did so before this node ended."""
    stderr: tuple[str, ...] = ()
    """The last lines the node wrote to stderr, oldest first, without line ends."""

    @property
    def ok(self) -> bool:
        """Whether the node ended well."""
        return self.outcome is Outcome.OK

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able values, with the end of stderr only."""
        return {
            "node": self.node,
            "outcome": str(self.outcome),
            "exit": None if self.exit is None else [self.exit.code, self.exit.signal],
            "reason": self.reason,
            "root_cause": self.root_cause,
            "stderr": [line[:MAX_CHARACTERS] for line in self.stderr[-MAX_LINES:]],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Return the result that `to_json` was called on."""
        return cls(
            data["node"],
            Outcome(data["outcome"]),
            None if data["exit"] is None else Exit(*data["exit"]),
            data["reason"],
            data["root_cause"],
            tuple(data["stderr"]),
        )


_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_FORCED_SIGNALS = frozenset({signal.SIGTERM, signal.SIGKILL})

_NO_CONTEXT = ExitContext()


def classify(
    node: str, exit_: Exit, context: ExitContext = _NO_CONTEXT, stderr: tuple[str, ...] = ()
) -> Result:
    """Return the result of a node whose process has exited.

    Code 0 is a success. So is an exit by SIGTERM or SIGINT, or by the codes 143 and 130, which
    programs use to report these signals, while the daemon was stopping the node, unless it had to
    be forced. After an aborted start, every end that the node has not chosen is a consequence of
    that, at whichever moment of its start the node was. What it did by itself counts as always. A
    node that the start waited for when it was stopped has failed, also if it ended well.
    """
    reason = describe(exit_)
    ended_by = _signal_of(exit_)
    by_signal = context.stopping and ended_by in _STOP_SIGNALS | _FORCED_SIGNALS
    cause = context.root_cause
    if cause is not None and (context.refused or by_signal):
        return Result(node, Outcome.CASCADING, exit_, reason, cause, stderr)
    stopped = context.stopping and not context.forced_reason and ended_by in _STOP_SIGNALS
    if exit_.code == 0 or stopped:
        if context.awaited:
            return Result(node, Outcome.FAILED, exit_, NOT_STARTED, cause, stderr)
        return Result(node, Outcome.OK, exit_, reason, cause, stderr)
    if context.watchdog_reason and ended_by == signal.SIGKILL:
        return Result(node, Outcome.FAILED, exit_, context.watchdog_reason, cause, stderr)
    if context.forced_reason and ended_by in _FORCED_SIGNALS:
        reason = context.forced_reason
        if context.awaited:
            reason = f"{NOT_STARTED}; it {reason}"
        return Result(node, Outcome.GRACE, exit_, reason, cause, stderr)
    if ended_by == signal.SIGKILL:
        reason += ", not sent by dora (the kernel does this when memory runs out)"
    return Result(node, Outcome.FAILED, exit_, reason, cause, stderr)


def not_started(node: str, why: str) -> Result:
    """Return the result of a node whose process could not be started."""
    return Result(node, Outcome.FAILED, None, f"could not be started: {why}")


def never_started(node: str, root_cause: str | None) -> Result:
    """Return the result of a node that was stopped before it had a process.

    `root_cause` is the node whose early end aborted the start, if there is one.
    """
    outcome = Outcome.OK if root_cause is None else Outcome.CASCADING
    return Result(node, outcome, None, "was stopped before it was started", root_cause)


def describe(exit_: Exit) -> str:
    """Return an exit status in words that follow a node's name."""
    return str(exit_) if exit_.signal is None else f"was {exit_}"


def _signal_of(exit_: Exit) -> int:
    """Return the signal that ended a process, or that its exit code reports; below 1 for none."""
    return (exit_.code or 0) - 128 if exit_.signal is None else exit_.signal
