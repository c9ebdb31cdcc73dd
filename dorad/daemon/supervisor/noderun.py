"""One node of a running dataflow: its process, its past, and what is intended with it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dorad.daemon.rules.exits import Result
from dorad.daemon.rules.restart import History

if TYPE_CHECKING:
    from dorad.daemon.supervisor.ports import Started
    from dorad.dataflow.model import NodeSpec

Status = Literal["starting", "running", "degraded", "restarting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """How a node is doing."""

    status: Status
    pid: int | None
    restarts: int
    started_at: float | None
    """When its process was started, in seconds since 1970."""
    broken_inputs: tuple[str, ...]
    last_exit: str | None
    """How its last process ended, in words that go on after its name."""


@dataclass(slots=True, eq=False)
class NodeRun:
    """What the supervisor knows of a node. Times are the event loop's unless they say otherwise."""

    node: NodeSpec
    process: Started | None = None
    pid: int | None = None
    restarts: int = 0
    """Processes that followed on the first one."""
    history: History = field(default_factory=History)
    runs: int = 0
    """Processes that were started, so that a new one can be told from the one before."""
    spawned: float | None = None
    """When the process was started; None without one."""
    begun: float = -math.inf
    """When the last one was."""
    started_at: float | None = None
    """The same, in seconds since 1970."""
    connected: bool = False
    """Whether the process has called `Node()`."""
    api_pid: int | None = None
    """Which process has: the node's, or one that it has started."""
    stopped: bool = False
    """Somebody asked for its end: it is not started again."""
    apart: bool = False
    """Its end is no part of the dataflow's result: it is being taken out, or not yet in."""
    again: bool = False
    """Somebody asked for its restart, whatever its policy."""
    refused: bool = False
    """Its last start was refused for a reason that may pass."""
    unstartable: bool = False
    """Nothing can start a process for it any more."""
    grace: float | None = None
    """That of the stop ladder, in seconds, if somebody asked for its end or its restart."""
    forced: str = ""
    """Why its end by a signal of ours counts against it."""
    killed: str = ""
    """Why a watchdog killed it."""
    last_exit: str | None = None
    resume_at: float | None = None
    """When it is started again; None unless it is between two lives."""
    ended_as: Result | None = None
    """How its last life ended, while it is between two."""
    broken: dict[str, int] = field(default_factory=dict)
    """Its broken inputs, and how many messages had been sent to each by then."""
    result: Result | None = None
    """Set once it has ended for good."""
    draining: asyncio.TimerHandle | None = None
    """Runs from the end of its `Node` until its consumers are told."""
    busy: str = ""
    """Which command is at work on it: `restarted`, `stopped`, ..."""
    successor: Started | None = None
    """A process that takes its place as soon as this one has ended."""
    successor_waits: bool = False
    """Whether that process has said hello."""
    successor_connected: bool = False
    """Whether it has the node's place already, though the process before it still lives."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Something was decided that may cut a wait short."""

    def started(self, process: Started, now: float, wall: float) -> None:
        """Take note of a process that was started; it may have called `Node()` by now."""
        self.process = process
        self.pid = process.pid
        self.runs += 1
        self.spawned = self.begun = now
        self.started_at = wall
        self.again = False
        self.forced = self.killed = ""
        self.resume_at = self.ended_as = None

    def gone(self, words: str) -> None:
        """Take note that its process has ended, as `words` say."""
        self.process = self.pid = self.spawned = self.started_at = self.api_pid = None
        self.connected = False
        self.last_exit = words
        self.cancel_draining()

    def cancel_draining(self) -> None:
        """What was to follow on the end of its `Node` does not."""
        if self.draining is not None:
            self.draining.cancel()
            self.draining = None

    @property
    def status(self) -> Status:
        """Return how it is doing, in a word."""
        if self.result is not None:
            return "stopped" if self.result.ok else "failed"
        if self.node.is_dynamic and not self.connected:
            return "stopped" if self.runs else "starting"
        if self.process is None and not self.node.is_dynamic:
            return "restarting" if self.runs else "starting"
        if not self.connected:
            return "starting"
        return "degraded" if self.broken else "running"

    @property
    def view(self) -> NodeView:
        """Return what there is to show of it."""
        return NodeView(
            self.status,
            self.pid,
            self.restarts,
            self.started_at,
            tuple(sorted(self.broken)),
            self.last_exit,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return what a daemon that takes over has to know, as JSON-able values."""
        return {
            "restarts": self.restarts,
            "history": [self.history.count, self.history.window_start],
            "runs": self.runs,
            "spawned": self.spawned,
            "started_at": self.started_at,
            "connected": self.connected,
            "api_pid": self.api_pid,
            "stopped": self.stopped,
            "apart": self.apart,
            "again": self.again,
            "grace": self.grace,
            "forced": self.forced,
            "killed": self.killed,
            "last_exit": self.last_exit,
            "resume_at": self.resume_at,
            "ended_as": self.ended_as and self.ended_as.to_json(),
            "broken": dict(self.broken),
            "result": self.result and self.result.to_json(),
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Become as the one was that `snapshot` was called on, without its process."""
        count, window_start = kept["history"]
        self.history = History(count, window_start)
        for name in (
            "restarts",
            "runs",
            "spawned",
            "started_at",
            "connected",
            "api_pid",
            "stopped",
            "apart",
            "again",
            "grace",
            "forced",
            "killed",
            "last_exit",
            "resume_at",
            "broken",
        ):
            setattr(self, name, kept[name])
        self.apart = self.apart and self.stopped  # one that was being added is in now
        self.ended_as = kept["ended_as"] and Result.from_json(kept["ended_as"])
        self.result = kept["result"] and Result.from_json(kept["result"])
