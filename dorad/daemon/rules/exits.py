"""What the end of a node's process means: fine, failed, or only the consequence of a failure."""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Any

from msgspec import Struct

from dorad.launch.model import Exit

KEPT_LINES = 50
KEPT_CHARACTERS = 2000
"""How much of a node's last words is kept for a daemon that takes over."""


class Outcome(StrEnum):
    """How a node ended."""

    OK = "ok"
    FAILED = "failed"
    GRACE = "grace"
    """It had to be killed because it did not end when it was asked to."""
    CASCADING = "cascading"
    """It could not start because another node ended too early."""


class History(Struct, frozen=True):
    """What the daemon did to a node, and saw of it, before its end."""

    stopping: bool = False
    """The daemon was stopping it."""
    forced: str = ""
    """Why the daemon ended it by a signal that counts against it; empty if it did not."""
    killed: str = ""
    """Why a watchdog killed it; empty if none did."""
    root_cause: str | None = None
    """The node whose early end kept the dataflow from starting, unless it is this one."""


class Result(Struct, frozen=True):
    """How one node ended, and what is known of the cause."""

    node: str
    outcome: Outcome
    exit: Exit | None
    """None if no process could be started."""
    reason: str
    """A sentence that goes on after the node's name: `exited with code 1`."""
    root_cause: str | None = None
    """The node that caused a cascading failure."""
    stderr: tuple[str, ...] = ()
    """The last lines the node wrote to stderr, oldest first, without line ends."""

    @property
    def ok(self) -> bool:
        """Whether the node did what was asked of it."""
        return self.outcome is Outcome.OK

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values, with no more than the end of what the node wrote."""
        return {
            "node": self.node,
            "outcome": str(self.outcome),
            "exit": None if self.exit is None else [self.exit.code, self.exit.signal],
            "reason": self.reason,
            "culprit": self.root_cause,
            "stderr": [line[:KEPT_CHARACTERS] for line in self.stderr[-KEPT_LINES:]],
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Result:
        """Return what `to_json` was made of."""
        return cls(
            kept["node"],
            Outcome(kept["outcome"]),
            None if kept["exit"] is None else Exit(*kept["exit"]),
            kept["reason"],
            kept["culprit"],
            tuple(kept["stderr"]),
        )


_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_FORCED_SIGNALS = frozenset({signal.SIGTERM, signal.SIGKILL})


_NO_HISTORY = History()


def classify(
    node: str, exit_: Exit, history: History = _NO_HISTORY, stderr: tuple[str, ...] = ()
) -> Result:
    """Judge the end of a node's process.

    Code 0 is fine. So is an end by SIGTERM or SIGINT (or the codes 143 and 130 by which programs
    pass these on) while the daemon was stopping the node, unless it had to be forced. Whatever
    else ends while the start is spoilt is a consequence of that.
    """
    reason = describe(exit_)
    ended_by = _signal_of(exit_)
    asked = history.stopping and not history.forced and ended_by in _STOP_SIGNALS
    if exit_.code == 0 or asked:
        return Result(node, Outcome.OK, exit_, reason, None, stderr)
    if history.root_cause is not None:
        return Result(node, Outcome.CASCADING, exit_, reason, history.root_cause, stderr)
    if history.killed and ended_by == signal.SIGKILL:
        return Result(node, Outcome.FAILED, exit_, history.killed, None, stderr)
    if history.forced and ended_by in _FORCED_SIGNALS:
        return Result(node, Outcome.GRACE, exit_, history.forced, None, stderr)
    if ended_by == signal.SIGKILL:
        reason += ", not sent by dora (the kernel does this when memory runs out)"
    return Result(node, Outcome.FAILED, exit_, reason, None, stderr)


def not_started(node: str, why: str) -> Result:
    """Return the result of a node whose process could not be started."""
    return Result(node, Outcome.FAILED, None, f"could not be started: {why}")


def describe(exit_: Exit) -> str:
    """Return the plain words for an exit status, as they go on after a node's name."""
    return str(exit_) if exit_.signal is None else f"was {exit_}"


def _signal_of(exit_: Exit) -> int | None:
    """Return the signal that ended a process, also where its own code only reports it."""
    if exit_.signal is not None:
        return exit_.signal
    if exit_.code is not None and exit_.code > 128:
        return exit_.code - 128
    return None
