"""The state of one node of a running dataflow: its process, its history, and pending requests."""

import asyncio
import logging
import math
import signal
from typing import Any, Literal

from msgspec import Struct, field

from dorad.daemon.broker.stats import Stats
from dorad.daemon.rules.exits import RESTARTED, Result
from dorad.daemon.rules.restart import RestartHistory
from dorad.daemon.supervisor.processes import NodeProcess
from dorad.dataflow.model import NodeSpec
from dorad.launch.model import Exit

Status = Literal["starting", "running", "degraded", "restarting", "failed", "stopped"]

_log = logging.getLogger(__name__)

_STORED = (
    "restarts",
    "starts",
    "spawned_at",
    "started_at",
    "connected",
    "api_pid",
    "stop_requested",
    "excluded",
    "restart_requested",
    "grace",
    "forced_reason",
    "watchdog_reason",
    "last_exit",
    "resume_at",
    "broken",
)
"""Fields of `NodeRun` that a snapshot has under their own names."""


class NodeView(Struct, frozen=True):
    """The facts about a node that `dora node list` shows."""

    status: Status
    pid: int | None
    restarts: int
    started_at: float | None
    """When its process was started, in seconds since 1970."""
    broken_inputs: tuple[str, ...]
    last_exit: str | None
    """How its last process exited, in words that follow the node's name."""
    stopped: bool
    """Whether a command has stopped it."""
    last_error: str = ""
    """The line of stderr that explains a failure of its last process best; empty without one."""


class NodeRun(Struct, eq=False):
    """State of one node. Times are on the event loop's clock unless the field says otherwise."""

    node: NodeSpec
    process: NodeProcess | None = None
    pid: int | None = None
    restarts: int = 0
    """Number of processes after the first one."""
    history: RestartHistory = field(default_factory=RestartHistory)
    starts: int = 0
    """Number of started processes. It grows with each process, so waiters notice the next one."""
    spawned_at: float | None = None
    """When the current process was started; None without a process."""
    last_spawn_at: float = -math.inf
    """When the last process was started."""
    started_at: float | None = None
    """When the current process was started, in seconds since 1970."""
    connected: bool = False
    """Whether the process has called `Node()`."""
    api_pid: int | None = None
    """The process that called `Node()`: the node's process, or a descendant of it."""
    stop_requested: bool = False
    """A command stops it: it is not restarted."""
    excluded: bool = False
    """Its end does not count in the dataflow's result: it is being added or removed."""
    restart_requested: bool = False
    """A command restarts it, regardless of its restart policy."""
    start_refused: bool = False
    """Its last start was refused for a reason that may pass."""
    starting: bool = False
    """Whether a process is being started that is not known yet."""
    unstartable: bool = False
    """The spawner has ended: no further process can be started."""
    grace: float | None = None
    """Grace of the stop ladder, in seconds, if a command stops or restarts the node."""
    forced_reason: str = ""
    """Why the supervisor ended it by a signal that counts as a failure; empty if it did not."""
    watchdog_reason: str = ""
    """Why a watchdog killed it; empty if none did."""
    silence_reported: bool = False
    """Whether it was reported that it has not called the node API for long."""
    last_exit: str | None = None
    last_error: str = ""
    resume_at: float | None = None
    """When the next process is due; None unless the node waits for its restart."""
    last_result: Result | None = None
    """How the last process ended, while the node waits for its restart."""
    broken: dict[str, int] = field(default_factory=dict)
    """Broken inputs, each with the number of messages sent to it when it broke."""
    result: Result | None = None
    """Set once the node has ended and will not restart."""
    drain_timer: asyncio.TimerHandle | None = None
    """Runs from the moment the process drops its `Node` until its consumers' inputs close."""
    busy: str = ""
    """The command that works on the node, as a participle: `restarted`, `stopped`, ..."""
    successor: NodeProcess | None = None
    """The process that takes over when the current one exits; set by `node replace`."""
    successor_waiting: bool = False
    """Whether the successor has said hello."""
    successor_connected: bool = False
    """Whether the successor has the node's mailbox, while the old process is still alive."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a decision may end a wait of the node's task early."""

    def process_started(self, process: NodeProcess, now: float, wall: float) -> None:
        """Record a new process. It may have called `Node()` already."""
        self.process = process
        self.pid = process.pid
        self.starts += 1
        self.spawned_at = self.last_spawn_at = now
        self.started_at = wall
        self.restart_requested = False
        self.forced_reason = self.watchdog_reason = ""
        self.resume_at = self.last_result = None

    def process_joined(self, pid: int) -> None:
        """Record the process of a dynamic node, which a user has started."""
        self.starts += 1
        self.pid = self.api_pid = pid
        self.connected = True

    def begin_again(self) -> None:
        """Forget that the node has ended: a command starts it again, with a new restart history."""
        self.result = None
        self.stop_requested = self.restart_requested = self.excluded = self.unstartable = False
        self.broken = {}
        self.history = RestartHistory()
        self.last_exit = RESTARTED
        self.restarts += 1

    def process_exited(self, reason: str, error: str = "") -> None:
        """Record that the process has exited; `reason` follows the node's name.

        `error` is what it wrote last, if it has failed.
        """
        self.process = self.pid = self.spawned_at = self.started_at = self.api_pid = None
        self.connected = False
        self.last_exit, self.last_error = reason, error
        self.cancel_drain()

    def cancel_drain(self) -> None:
        """Keep the consumers' inputs open: the process exited, or created another `Node`."""
        if self.drain_timer is not None:
            self.drain_timer.cancel()
            self.drain_timer = None

    @property
    def status(self) -> Status:
        """The node's status in one word."""
        if self.result is not None:
            return "stopped" if self.result.ok else "failed"
        if self.node.is_dynamic and not self.connected:
            return "stopped" if self.starts else "starting"
        if self.process is None and not self.node.is_dynamic:
            return "restarting" if self.starts else "starting"
        if not self.connected:
            return "starting"
        return "degraded" if self.broken else "running"

    @property
    def view(self) -> NodeView:
        """The facts about the node that commands show."""
        return NodeView(
            self.status,
            self.pid,
            self.restarts,
            self.started_at,
            tuple(sorted(self.broken)),
            self.last_exit,
            self.stop_requested,
            self.last_error,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state that the next daemon needs, as JSON-able values."""
        return {
            **{name: getattr(self, name) for name in _STORED},
            "last_error": self.last_error,
            "silence_reported": self.silence_reported,
            "history": [self.history.count, self.history.window_start],
            "broken": dict(self.broken),
            "ended_as": self.last_result and self.last_result.to_json(),
            "result": self.result and self.result.to_json(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore the state from `snapshot()` of an earlier daemon, without the process."""
        for name in _STORED:
            setattr(self, name, snapshot[name])
        # A daemon before 0.2.0 stored neither.
        self.last_error = snapshot.get("last_error", "")
        self.silence_reported = snapshot.get("silence_reported", False)
        # A node that was being added belongs to the dataflow now; one being removed still leaves.
        self.excluded = self.excluded and self.stop_requested
        self.history = RestartHistory(*snapshot["history"])
        self.last_result = snapshot["ended_as"] and Result.from_json(snapshot["ended_as"])
        self.result = snapshot["result"] and Result.from_json(snapshot["result"])


def adopted_process(
    run: NodeRun, adopted: NodeProcess | Exit | None, stats: Stats
) -> NodeProcess | Exit | None:
    """Return the process of a node that an earlier daemon started, or how it exited."""
    if adopted is None and run.spawned_at is not None:
        _log.debug("node %s: its process has vanished", run.node.id)
        run.watchdog_reason = "ended while no daemon was running"
        return Exit(signal=signal.SIGKILL)
    if adopted is not None and not isinstance(adopted, Exit):
        if run.spawned_at is None:
            # It is the process that the restart has started, not the one that it was to end.
            run.restart_requested = False
        run.connected = run.connected or stats.vitals(run.node.id).connected
    return adopted
