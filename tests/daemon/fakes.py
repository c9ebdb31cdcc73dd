"""Fakes of a broker and of node processes that record calls."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dorad.daemon.rules.exits import Result
from dorad.daemon.storing import Changes
from dorad.daemon.supervisor.supervisor import Supervisor
from dorad.dataflow.model import Dataflow, Input, NodeSpec
from dorad.launch.model import Exit, LaunchError
from dorad.logrecord import Level
from tests.harness.waiting import DEADLINE_S, until


@dataclass
class Edge:
    """Counters of one edge."""

    source_node: str
    output: str
    node: str
    input: str
    queue_size: int = 10
    sent: int = 0
    received: int = 0
    dropped: int = 0
    queued: int = 0


@dataclass
class Vitals:
    """The vitals of a node."""

    connected: bool = True
    asleep: bool = True
    pulse: int = 0
    unread: bool = False
    queued: int = 0


class FakeBroker:
    """Records every call as a tuple: its name and arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.numbers: dict[str, int] = {}
        self.edges: list[Edge] = []
        self.nodes: dict[str, Vitals] = {}
        self.pids: dict[str, int] = {}
        self.refused: set[str] = set()
        self.stepper: object | None = None
        self.notifications = self.stats = self.topology = self.handovers = self

    def node_config(self, node_id: str) -> str:
        return f"config of {node_id}"

    def has_refused(self, node_id: str) -> bool:
        return node_id in self.refused

    def open_barrier(self) -> None:
        self.calls.append(("open_barrier",))

    def abort_start(self, reason: str) -> None:
        self.calls.append(("abort_start", reason))

    def stop(self, node_id: str, reason: str) -> None:
        self.calls.append(("stop", node_id, str(reason)))

    def close_input(self, node_id: str, input_id: str) -> None:
        self.calls.append(("close_input", node_id, input_id))

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        self.calls.append(("node_failed", node_id, source_node, error, *input_ids))

    def detach(self, node_id: str) -> None:
        self.calls.append(("detach", node_id))

    def activity(self, node_id: str) -> int:
        return self.numbers.get(node_id, 0)

    def counters(self) -> list[Edge]:
        return self.edges

    def input_counters(self, node_id: str, input_id: str) -> Edge:
        return next(edge for edge in self.edges if (edge.node, edge.input) == (node_id, input_id))

    def vitals(self, node_id: str) -> Vitals:
        return self.nodes.setdefault(node_id, Vitals())

    def pid(self, node_id: str) -> int | None:
        return self.pids.get(node_id)

    def ping(self, node_id: str) -> None:
        self.calls.append(("ping", node_id))

    def released(self, node_id: str) -> None:
        self.calls.append(("released", node_id))

    def restarting(self, node_id: str, restart_count: int) -> None:
        self.calls.append(("restarting", node_id, str(restart_count)))

    def reopen(self, node_id: str) -> None:
        self.calls.append(("reopen", node_id))

    def node_restarted(self, node_id: str, source_node: str, *, had_ended: bool = False) -> None:
        self.calls.append(("node_restarted", node_id, source_node))

    def input_broken(self, node_id: str, input_id: str) -> None:
        self.calls.append(("input_broken", node_id, input_id))

    def input_recovered(self, node_id: str, input_id: str) -> None:
        self.calls.append(("input_recovered", node_id, input_id))

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        self.calls.append(("add_node", node.id))

    def remove_node(self, node_id: str) -> None:
        self.calls.append(("remove_node", node_id))

    def add_edge(self, consumer: str, entry: Input) -> None:
        self.calls.append(("add_edge", consumer, entry.id))

    def remove_edge(self, consumer: str, input_id: str) -> None:
        self.calls.append(("remove_edge", consumer, input_id))

    def update(self, dataflow: Dataflow) -> None:
        self.calls.append(("update",))

    def begin(self, node_id: str, replacement: NodeSpec, dataflow: Dataflow) -> None:
        self.calls.append(("begin_handover", node_id))

    def end(self, node_id: str) -> bool:
        self.calls.append(("end_handover", node_id))
        return True


class FakeProcess:
    """Runs until `end` is called or a signal that it does not ignore arrives."""

    def __init__(self, ignores: frozenset[int], pid: int = 1) -> None:
        self.pid = pid
        self.signals: list[int] = []
        self.stderr: tuple[str, ...] = ()
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._ignores = ignores

    def signal(self, sig: int) -> None:
        self.signals.append(sig)
        if sig == signal.SIGKILL or sig not in self._ignores:
            self.end(Exit(signal=sig))

    def end(self, exit_: Exit) -> None:
        if not self.ended.done():
            self.ended.set_result(exit_)

    async def exited(self) -> Exit:
        return await asyncio.shield(self.ended)

    async def wait(self) -> Exit:
        return await self.exited()


class FakeChanges(Changes):
    """Calls `on_change` at each change; with a list in `waiting`, nothing is stored yet."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.waiting: list[Callable[[], None]] | None = None

    def changed(self) -> None:
        self.on_change()

    def when_stored(self, call: Callable[[], None]) -> None:
        if self.waiting is None:
            call()
        else:
            self.waiting.append(call)


@dataclass
class Stage:
    """A supervisor with fakes around it, and methods to control them."""

    dataflow: Dataflow
    grace: float = 10.0
    finish_grace: float | None = None
    exit_when_nodes_finish: bool = False
    ignores: frozenset[int] = frozenset()
    broken: frozenset[str] = frozenset()
    """Nodes that cannot be started."""
    slow: frozenset[str] = frozenset()
    """Nodes whose start never completes."""
    gate: asyncio.Event | None = None
    """Starts wait for it, if there is one."""
    waiting: list[str] = field(default_factory=list)
    """The nodes whose starts have come to the gate."""
    broker: FakeBroker = field(default_factory=FakeBroker)
    reports: list[tuple[str, str | None, str]] = field(default_factory=list)
    processes: dict[str, FakeProcess] = field(default_factory=dict)
    """The newest of each node."""
    started: list[tuple[str, int, float]] = field(default_factory=list)
    """Node, restart count and the loop's time of every start."""
    events: list[tuple[str, str | None]] = field(default_factory=list)
    restored: dict[str, Any] | None = None
    changes: FakeChanges = field(default_factory=FakeChanges)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            self.dataflow,
            lambda _: self.broker,
            self,
            self.changes,
            exit_when_nodes_finish=self.exit_when_nodes_finish,
            grace=self.grace,
            finish_grace=self.finish_grace,
            restored=self.restored,
        )

    def report(self, level: Level, node: str | None, text: str) -> None:
        self.reports.append((level, node, text))

    def note(self, node: str, text: str) -> None:
        self.report("warn", node, text)

    def publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        self.events.append((what, node))

    def check_program(self, node: NodeSpec, after: Dataflow) -> None:
        """Every program is there."""

    def topology_changed(self, after: Dataflow) -> None:
        """Nothing is routed."""

    async def start(self, node: NodeSpec, config: str, restart_count: int) -> FakeProcess:
        assert config == f"config of {node.id}"
        if node.id in self.slow:
            await asyncio.Event().wait()
        if self.gate is not None:
            self.waiting.append(node.id)
            await self.gate.wait()
        if node.id in self.broken:
            raise LaunchError(f"no such file: {node.path}")
        self.started.append((node.id, restart_count, asyncio.get_running_loop().time()))
        self.processes[node.id] = FakeProcess(self.ignores, pid=len(self.started))
        return self.processes[node.id]

    def connect(self, *nodes: str) -> None:
        """Let these nodes call `Node()`."""
        for node in nodes:
            self.supervisor.on_connected(node, 1)

    async def until_started(self, node: str, starts: int) -> FakeProcess:
        """Wait until a node has had that many processes; return the newest."""
        await until(lambda: [each[0] for each in self.started].count(node) >= starts)
        return self.processes[node]

    def status(self, node: str) -> str:
        """The status of a node."""
        return self.supervisor.statuses()[node].status

    async def called(self, *call: str) -> None:
        """Wait until the broker got this call."""
        await until(lambda: call in self.broker.calls)

    async def spawned(self) -> None:
        """Wait until every node that can be started has been, and the supervisor knows."""
        spawnable = {node.id for node in self.dataflow.nodes if not node.is_dynamic}
        wanted = spawnable - self.broken - self.slow

        def known(name: str) -> bool:
            view = self.supervisor.statuses()[name]
            return view.pid is not None or view.last_exit is not None

        # The supervisor learns of a process a moment after its start.
        await until(lambda: self.processes.keys() >= wanted and all(map(known, wanted)))


@asynccontextmanager
async def running(
    stage: Stage, adopted: Mapping[str, FakeProcess | Exit] | None = None
) -> AsyncIterator[asyncio.Task[tuple[Result, ...]]]:
    """Run the stage's dataflow; fail if it or a task of it has not ended."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(stage.supervisor.run(stage.start, adopted))
    try:
        if adopted is None:
            await stage.spawned()
        yield task
        async with asyncio.timeout(DEADLINE_S):
            await task
        assert asyncio.all_tasks() == before
    finally:
        task.cancel()


@asynccontextmanager
async def connected(stage: Stage, *nodes: str) -> AsyncIterator[Stage]:
    """Run the stage's dataflow as `running` does; these nodes have called `Node()`."""
    async with running(stage):
        stage.connect(*nodes)
        yield stage
