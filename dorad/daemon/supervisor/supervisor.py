"""The supervisor: starts the nodes of a dataflow, carries out decisions, knows how each ended."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

from dorad.daemon.errors import CommandError
from dorad.daemon.rules import actions
from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.exits import Outcome, Result
from dorad.daemon.rules.ladder import GRACE_S, RESTART_GRACE_S
from dorad.daemon.rules.lifecycle import Lifecycle
from dorad.daemon.supervisor.commands import Commands
from dorad.daemon.supervisor.noderun import NodeRun, NodeView
from dorad.daemon.supervisor.noderunner import NodeRunner
from dorad.daemon.supervisor.shared import Shared, Totals
from dorad.daemon.supervisor.stopladder import StopLadder
from dorad.daemon.supervisor.watch import IdleWatch
from dorad.daemon.supervisor.watchdogs import Watchdogs
from dorad.dataflow.model import RestartPolicy
from dorad.launch.model import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from dorad.daemon.supervisor.ports import Broker, Event, Notice, Started, StartNode
    from dorad.dataflow.model import Dataflow, Input, NodeSpec

LINGER_S = 0.25
"""A process that drops its `Node` is mostly about to end. Its consumers hear of it when it has, and
then also whether it failed; or after this time, if it lives on."""

MAX_NAMED = 20
"""Nodes that one line names."""

PATIENCE_S = 10.0
"""Seconds after which the user is told for which nodes the start is waiting."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs one dataflow to its end. Belongs to one event loop; also listens to the broker."""

    def __init__(
        self,
        dataflow: Dataflow,
        make_broker: Callable[[Supervisor], Broker],
        notice: Notice,
        *,
        exit_when_nodes_finish: bool = False,
        grace: float = GRACE_S,
        finish_grace: float | None = None,
        restored: dict[str, Any] | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_happening: Event = lambda what, node, text, data: None,
    ) -> None:
        """Make a supervisor that has started nothing yet.

        `grace` is that of the stop ladder and `finish_grace` that of the straggler rule, both in
        seconds; None turns the straggler rule off. `restored` is a `snapshot()` of an earlier
        daemon's supervisor whose dataflow goes on; `on_change` is called when it would differ.
        """
        life = Lifecycle(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self.broker = make_broker(self)
        self.opened_at: float | None = None
        """When the barrier opened, on the loop's clock."""
        self._shared = Shared(
            life,
            self.broker,
            notice,
            on_happening,
            {node.id: NodeRun(node) for node in dataflow.nodes},
            on_change,
            self._carry_out,
        )
        self._life = life
        self._nodes = self._shared.nodes
        self._grace = grace
        """Of the stop ladder, in seconds: the one that was asked for, once a stop has been."""
        self._finish_grace = finish_grace
        self._ladder = StopLadder(self._shared, self.kill)
        self._commands: Commands | None = None
        self._at_work: set[asyncio.Future[None]] = set()
        if restored is not None:
            self._restore(restored)

    @property
    def dataflow(self) -> Dataflow:
        """The dataflow as it is now."""
        return self._life.dataflow

    async def until_opened(self, seconds: float) -> float | None:
        """Wait for the barrier to open; return when it did, None if it has not within so long."""
        await self._shared.bell.until(lambda: self.opened_at is not None, seconds)
        return self.opened_at

    @property
    def results(self) -> list[Result]:
        """In the order in which the nodes ended."""
        return self._shared.results

    @property
    def totals(self) -> Totals:
        """How often nodes were restarted or killed, and inputs broke and recovered."""
        return self._shared.totals

    def statuses(self) -> dict[str, NodeView]:
        """Return how every node is doing, in the order of the dataflow."""
        return {name: run.view for name, run in self._nodes.items()}

    def status(self, node_id: str) -> NodeView | None:
        """Return how one node is doing; None if there is no such node."""
        run = self._nodes.get(node_id)
        return None if run is None else run.view

    def snapshot(self) -> dict[str, Any]:
        """Return what a daemon that takes over has to know, as JSON-able values.

        Times in it are of the monotonic clock, which goes on until the machine is rebooted.
        """
        return {
            "life": self._life.snapshot(),
            "opened_at": self.opened_at,
            "killing": self._shared.killing,
            "grace": self._grace,
            "nodes": {name: run.snapshot() for name, run in self._nodes.items()},
            "results": [result.to_json() for result in self.results],
        }

    def _restore(self, kept: dict[str, Any]) -> None:
        self._life.restore(kept["life"])
        self.opened_at = kept["opened_at"]
        self._shared.killing = kept["killing"]
        if self._life.stopping:
            self._grace = kept["grace"]
        self.results.extend(Result.from_json(each) for each in kept["results"])
        for name, run in self._nodes.items():
            if name in kept["nodes"]:
                run.restore(kept["nodes"][name])
            else:
                words = "was just being added or removed when its daemon ended"
                run.result = Result(name, Outcome.OK, None, words)

    # -- from start to end -------------------------------------------------------------------

    async def run(
        self, start: StartNode, adopted: Mapping[str, Started | Exit] | None = None
    ) -> tuple[Result, ...]:
        """Start every node and return when the dataflow has ended and every process with it.

        `adopted` are the processes that an earlier daemon has left, and how those ended that have
        ended since; for a supervisor that was made with `restored`.
        """
        loop = asyncio.get_running_loop()
        patience = loop.call_later(PATIENCE_S, self._tell_who_is_awaited)
        tender = NodeRunner(self._shared, start)
        try:
            async with asyncio.TaskGroup() as tasks:

                def run_node(run: NodeRun, found: Started | Exit | None = None) -> None:
                    tasks.create_task(tender.run_node(run, found), name=f"node {run.node.id}")

                self._commands = Commands(self._shared, start, run_node)
                for name, run in self._nodes.items():
                    if run.result is None and not run.node.is_dynamic:
                        run_node(run, self._found(run, (adopted or {}).get(name)))
                        if run.stopped or run.again:  # an earlier daemon was at it
                            tasks.create_task(self._commands.go_on(run), name=f"end of {name}")
                background = (
                    tasks.create_task(self._ladder.escalate(), name="stop ladder"),
                    tasks.create_task(
                        IdleWatch(self._shared, self._finish_grace).run(self.stop),
                        name="straggler rule",
                    ),
                    tasks.create_task(Watchdogs(self._shared).run(), name="watchdogs"),
                )
                if adopted is None:
                    self._carry_out(self._life.begin())
                elif self._life.stopping:
                    self._ladder.begin(self._grace)
                    self._send_stop()
                await self._shared.bell.until(lambda: self._shared.finished)
                for task in background:
                    task.cancel()
            if self._at_work:
                await asyncio.wait(self._at_work)
        finally:
            for work in self._at_work:
                work.cancel()
            self._commands = None
            patience.cancel()
            for run in self._nodes.values():
                run.cancel_draining()
        return tuple(self.results)

    def _found(self, run: NodeRun, found: Started | Exit | None) -> Started | Exit | None:
        """Return what became of the process of a node that an earlier daemon has left."""
        if found is None and run.spawned is not None:
            run.killed = "ended while no daemon was there to see it"
            return Exit(signal=signal.SIGKILL)
        if found is not None and not isinstance(found, Exit):
            run.connected = run.connected or self.broker.stats.vitals(run.node.id).connected
        return found

    def stop(self, grace: float | None = None, *, force: bool = False) -> None:
        """Ask every node to end, and see to it that it does: SIGTERM after `grace` seconds, SIGKILL
        after half as many more; with `force` at once. A second call can only make it sooner.
        """
        if force:
            self.kill("was killed on request")
            return
        _log.debug("asked to stop, grace %s", grace)
        if grace is not None and (not self._life.stopping or grace < self._grace):
            self._grace = grace
        self._carry_out(self._life.stop())
        self._ladder.begin(self._grace)
        self._shared.on_change()

    def kill(self, why: str) -> None:
        """Kill every node at once; `why` goes on after a node's name: `was killed, because ...`."""
        _log.debug("every node is killed: %s", why)
        self._shared.killing = why
        for node in self._life.running:
            self._nodes[node].forced = self._nodes[node].forced or why
        self.stop()
        self._shared.on_change()
        for run in self._nodes.values():
            for process in (run.process, run.successor):
                if process is not None:
                    process.signal(signal.SIGKILL)

    # -- commands ----------------------------------------------------------------------------

    async def restart_node(self, node_id: str, grace: float = RESTART_GRACE_S) -> None:
        """End a node's process, with the stop ladder, and start the next one, whatever its policy.

        Its consumers get NODE_RESTARTED; nothing is closed, and what waits for it goes on waiting.
        This and the following raise CommandError, for a node that does not exist, is in the hands
        of another command, or cannot be asked for such a thing now.
        """
        await self._see_through(self._command().restart(node_id, grace))

    async def stop_node(self, node_id: str, grace: float = GRACE_S) -> None:
        """End a node for good, with the stop ladder."""
        await self._see_through(self._command().stop(node_id, grace))

    async def add_node(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Start one more node; `dataflow` is the dataflow with it."""
        await self._see_through(self._command().add(node, dataflow))

    async def remove_node(self, node_id: str, dataflow: Dataflow, grace: float = GRACE_S) -> None:
        """End a node and take it out; `dataflow` is the dataflow without it."""
        await self._see_through(self._command().remove(node_id, dataflow, grace))

    async def replace_node(
        self, node_id: str, node: NodeSpec, dataflow: Dataflow, grace: float = GRACE_S
    ) -> None:
        """Start another process in a node's place, then end the old one; nothing is lost.

        If the new one does not come up, within its `startup_timeout` or 30 s, the old one stays.
        """
        await self._see_through(self._command().replace(node_id, node, dataflow, grace))

    def connect(self, consumer: str, entry: Input, dataflow: Dataflow) -> None:
        """Add an input to a node; `dataflow` is the dataflow with it."""
        self._command().connect(consumer, entry, dataflow)

    def disconnect(self, consumer: str, input_id: str, dataflow: Dataflow) -> None:
        """Take an input away from a node; `dataflow` is the dataflow without it."""
        self._command().disconnect(consumer, input_id, dataflow)

    async def _see_through(self, command: Coroutine[Any, Any, None]) -> None:
        """Carry a command out, also if whoever asked for it goes away before it is done."""
        work = asyncio.ensure_future(command)
        self._at_work.add(work)
        work.add_done_callback(self._worked)
        await asyncio.shield(work)

    def _worked(self, work: asyncio.Future[None]) -> None:
        self._at_work.discard(work)
        if not work.cancelled():
            work.exception()  # it is the asker's, who may have gone

    def _command(self) -> Commands:
        if self._commands is None or self._shared.finished:
            raise CommandError("refused", "the dataflow does not run")
        return self._commands

    # -- what the broker hears ---------------------------------------------------------------

    def on_connected(self, node_id: str, pid: int) -> None:
        """Take note that a node called `Node()`."""
        _log.debug("node %s called Node() in process %d", node_id, pid)
        run = self._nodes[node_id]
        run.cancel_draining()  # one process may make a second Node
        run.connected = True
        run.api_pid = pid
        run.successor_connected = run.successor_waits
        if run.node.is_dynamic:
            run.runs += 1
            run.pid = pid
        self._carry_out(self._life.connected(node_id))
        self._shared.changed()

    def on_waiting(self, node_id: str, pid: int) -> None:
        """Take note that a process that is to replace a node has said hello."""
        run = self._nodes[node_id]
        run.successor_waits = run.successor is not None
        self._shared.changed()

    def on_outputs_done(self, node_id: str) -> None:
        """Take note that a node dropped its `Node`."""
        _log.debug("node %s dropped its Node", node_id)
        run = self._nodes.get(node_id)
        if self._shared.finished or run is None:
            return
        if run.node.is_dynamic:
            self._carry_out(self._life.outputs_done(node_id))
        elif run.result is None and run.draining is None:
            loop = asyncio.get_running_loop()
            run.draining = loop.call_later(LINGER_S, self._outlived_its_node, run)

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        """Take note that an operator of a node has ended; the others of its process go on.

        What it feeds is closed now, unless another process may follow, in which it lives again.
        """
        run = self._nodes.get(node_id)
        if run is not None and not self._shared.finished and not self._may_follow(run):
            self._carry_out(self._life.operator_ended(node_id, operator))

    def _outlived_its_node(self, run: NodeRun) -> None:
        """Close what a process feeds that has no `Node` any more but lives on.

        Not if another process may follow: that one feeds the same consumers.
        """
        follows = self._may_follow(run)
        _log.debug("node %s outlives its Node; another may follow: %s", run.node.id, follows)
        if run.successor is None and not follows:
            self._carry_out(self._life.outputs_done(run.node.id))

    def _may_follow(self, run: NodeRun) -> bool:
        follows = run.again or run.node.restart.policy is not RestartPolicy.NEVER
        return follows and not run.stopped and self._life.may_restart(run.node.id)

    def on_disconnected(self, node_id: str) -> None:
        """Take note that the socket of a node is gone."""
        _log.debug("node %s hung up", node_id)
        run = self._nodes.get(node_id)
        if run is not None and run.node.is_dynamic:
            run.connected, run.pid = False, None
            self._shared.changed()
        self.on_outputs_done(node_id)

    # -- decisions ---------------------------------------------------------------------------

    def _carry_out(self, todo: Iterable[actions.Action]) -> None:
        """Do what was decided."""
        broker, todo = self.broker, list(todo)
        for action in todo:
            _log.debug("decided: %r", action)
            match action:
                case actions.OpenBarrier():
                    self.opened_at = asyncio.get_running_loop().time()
                    broker.notifications.open_barrier()
                case actions.AbortStart(reason):
                    broker.notifications.abort_start(reason)
                case actions.CloseInput(node, name):
                    broker.notifications.close_input(node, name)
                case actions.TellFailed(node, source, error, inputs):
                    broker.notifications.node_failed(node, source, error, list(inputs))
                case actions.TellRestarted(node, source):
                    broker.notifications.node_restarted(node, source)
                case actions.Stop(node, reason, operator):
                    if operator is None:
                        broker.notifications.stop(node, reason)
                    else:
                        broker.notifications.stop_operator(node, operator, reason)
                    self._nodes[node].wake.set()
                case actions.StopAll():
                    self._ladder.begin(self._grace)
                    self._send_stop()
                case actions.Finish():
                    for node in self._life.dynamic:
                        broker.notifications.stop(node, actions.StopReason.MANUAL)
                    self._shared.finished = True
        if todo:
            self._shared.changed()

    def _send_stop(self) -> None:
        for node in (*self._life.running, *self._life.dynamic):
            self.broker.notifications.stop(node, actions.StopReason.MANUAL)
            self._nodes[node].wake.set()

    def _tell_who_is_awaited(self) -> None:
        pending = self._life.barrier.pending
        if self._life.barrier.phase is Phase.WAITING and pending:
            first = sorted(pending)[:MAX_NAMED]
            more = len(pending) - len(first)
            names = ", ".join(first) + (f" and {more} more" if more else "")
            self._shared.notice("warn", None, f"the start still waits for Node() in: {names}")
