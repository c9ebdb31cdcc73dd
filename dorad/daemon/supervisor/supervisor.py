"""The supervisor of one dataflow: it starts nodes, carries out decisions, collects results."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

from dorad.daemon.rules import actions
from dorad.daemon.rules.exits import Outcome, Result
from dorad.daemon.rules.ladder import GRACE_S
from dorad.daemon.rules.lifecycle import Lifecycle
from dorad.daemon.rules.links import Links
from dorad.daemon.supervisor.commands import Commands
from dorad.daemon.supervisor.idlewatch import IdleWatch
from dorad.daemon.supervisor.noderun import NodeRun, NodeView, adopted_process
from dorad.daemon.supervisor.noderunner import NodeRunner
from dorad.daemon.supervisor.startdeadlines import StartDeadlines
from dorad.daemon.supervisor.state import RunListener, SupervisorState
from dorad.daemon.supervisor.stopladder import StopLadder
from dorad.daemon.supervisor.watchdogs import Watchdogs
from dorad.dataflow.settings import RestartPolicy
from dorad.launch.model import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dorad.daemon.broker.broker import Broker
    from dorad.daemon.storing import Changes
    from dorad.daemon.supervisor.processes import NodeProcess, StartNode
    from dorad.dataflow.model import Dataflow
    from dorad.link.reports import ChannelEvent, Status

DRAIN_S = 0.25
"""Seconds that a process may live on after it dropped its `Node`, before its consumers' inputs
close. Most processes exit sooner; their consumers then also learn whether the node failed."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs one dataflow to its end, and listens to the broker. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        make_broker: Callable[[Supervisor], Broker],
        listener: RunListener,
        changes: Changes,
        *,
        exit_when_nodes_finish: bool = False,
        hold: float | None = None,
        links: Links | None = None,
        grace: float = GRACE_S,
        finish_grace: float | None = None,
        restored: dict[str, Any] | None = None,
    ) -> None:
        """Prepare a supervisor and its broker; no node is started yet.

        `make_broker` gets this supervisor, the listener of the broker. `changes` learns when
        `snapshot()` would differ.

        With `hold` the start barrier opens only after `open_barrier`; after `hold` seconds the
        start fails. `links` collects what the link process reports.
        `grace` is the grace of the stop ladder, in seconds. `finish_grace` is that of the straggler
        rule; None turns the rule off. `restored` is `snapshot()` of an earlier daemon's supervisor.
        """
        self.broker = make_broker(self)
        self.opened = False
        """Whether the start barrier has opened."""
        self.start_failure = ""
        """Why the start failed for a reason outside the nodes; empty if it did not."""
        self.links = Links() if links is None else links
        self._lifecycle = Lifecycle(
            dataflow, exit_when_nodes_finish=exit_when_nodes_finish, held=hold is not None
        )
        self._state = SupervisorState(
            self._lifecycle,
            self.broker,
            listener,
            changes,
            {node.id: NodeRun(node) for node in dataflow.nodes},
            self._carry_out,
        )
        self._deadlines = StartDeadlines(self._state, self.links, hold, self._fail_start)
        self.commands = Commands(self._state)
        self._nodes = self._state.nodes
        self._grace = grace
        self._finish_grace = finish_grace
        self._ladder = StopLadder(self._state, self.kill)
        if restored is not None:
            self._restore(restored)

    @property
    def dataflow(self) -> Dataflow:
        """The dataflow as it is now."""
        return self._lifecycle.dataflow

    @property
    def results(self) -> tuple[Result, ...]:
        """The results of the nodes that have ended, in that order."""
        return tuple(self._state.results)

    @property
    def finished(self) -> bool:
        """Whether the dataflow has ended."""
        return self._state.finished

    @property
    def ready(self) -> bool:
        """Whether all nodes wait at the start barrier and all links are up."""
        return self._lifecycle.barrier.complete and not self.links.missing()

    def open_barrier(self) -> None:
        """Let a held start barrier open, as soon as all nodes have called `Node()`."""
        _log.debug("the start barrier is released")
        self._deadlines.hold_until = None
        self._carry_out(self._lifecycle.release())
        self._state.changed()

    def statuses(self) -> dict[str, NodeView]:
        """Return the view of every node, in the order of the dataflow."""
        return {name: run.view for name, run in self._nodes.items()}

    def status(self, node_id: str) -> NodeView | None:
        """Return the view of one node; None if there is no such node."""
        run = self._nodes.get(node_id)
        return None if run is None else run.view

    def has_drained(self, node_id: str) -> bool:
        """Return True if all inputs of a node have closed."""
        return self._lifecycle.flow.has_drained(node_id)

    def may_start_again(self, node_id: str) -> bool:
        """Return True if a node that has ended would receive something, or has no source."""
        return self._lifecycle.may_start_again(node_id)

    def has_ended_elsewhere(self, output: str) -> bool:
        """Return True if an output of another machine, `node/output`, sends no more."""
        return self._lifecycle.flow.has_ended_elsewhere(output)

    def takes_inputs(self, node_id: str) -> bool:
        """Return True if an input can be added to a node: it has not ended and is not ending."""
        ended = self._nodes[node_id].result is not None
        return not ended and not self.has_drained(node_id)

    def snapshot(self) -> dict[str, Any]:
        """Return the state that the next daemon needs, as JSON-able values.

        Times are on the monotonic clock, which runs until the machine reboots.
        """
        return {
            "life": self._lifecycle.snapshot(),
            # Daemons before 0.2.0 store, and expect, a time; None if it has not opened.
            "opened_at": 0.0 if self.opened else None,
            "hold_until": self._deadlines.hold_until,
            "start_failure": self.start_failure,
            "killing": self._state.kill_reason,
            "grace": self._grace,
            "nodes": {name: run.snapshot() for name, run in self._nodes.items()},
            "results": [result.to_json() for result in self._state.results],
            "finished": self._state.finished,
            "links": self.links.snapshot(),
        }

    def _restore(self, snapshot: dict[str, Any]) -> None:
        self._lifecycle.restore(snapshot["life"])
        self.opened = snapshot["opened_at"] is not None
        self._deadlines.hold_until = snapshot.get("hold_until")
        self.start_failure = snapshot.get("start_failure", "")
        self._state.kill_reason = snapshot["killing"]
        if "links" in snapshot:
            self.links.restore(snapshot["links"])
        if self._lifecycle.stopping:
            self._grace = snapshot["grace"]
        self._state.results.extend(Result.from_json(each) for each in snapshot["results"])
        self._state.finished = snapshot.get("finished", False)
        for name, run in self._nodes.items():
            if name in snapshot["nodes"]:
                run.restore(snapshot["nodes"][name])
            else:
                reason = "was just being added or removed when its daemon ended"
                run.result = Result(name, Outcome.OK, None, reason)

    async def run(
        self, start: StartNode, adopted: Mapping[str, NodeProcess | Exit] | None = None
    ) -> tuple[Result, ...]:
        """Start every node; return when the dataflow and all its processes have ended.

        For a supervisor created with `restored`, `adopted` maps nodes to the processes that the
        earlier daemon started, or to their exits.
        """
        self._deadlines.begin(first=adopted is None)
        try:
            async with asyncio.TaskGroup() as tasks:
                runner = NodeRunner(self._state, start, tasks)
                self.commands.open(runner)
                for name, run in self._nodes.items():
                    if run.result is not None:
                        continue
                    if run.node.is_dynamic:
                        present = adopted is not None and self._adopt_dynamic(run)
                    else:
                        process = adopted_process(run, (adopted or {}).get(name), self.broker.stats)
                        runner.start(run, process)
                        # Without a process, the next one is not the one to be ended.
                        present = process is not None and not isinstance(process, Exit)
                    if present and (run.stop_requested or run.restart_requested):
                        tasks.create_task(self.commands.resume(run), name=f"end of {name}")
                background = (
                    tasks.create_task(self._ladder.run(), name="stop ladder"),
                    tasks.create_task(
                        IdleWatch(self._state, self._finish_grace).run(self.stop),
                        name="straggler rule",
                    ),
                    tasks.create_task(Watchdogs(self._state).run(), name="watchdogs"),
                )
                if adopted is None:
                    self._carry_out(self._lifecycle.begin())
                elif self._lifecycle.stopping:
                    self._ladder.start(self._grace)
                    self._send_stop()
                await self._state.bell.until(lambda: self._state.finished)
                for task in background:
                    task.cancel()
            await self.commands.detached.drain()
        finally:
            self.commands.close()
            self._deadlines.cancel()
            for run in self._nodes.values():
                run.cancel_drain()
        return self.results

    def _adopt_dynamic(self, run: NodeRun) -> bool:
        """Catch up with a dynamic node that has come or left unnoticed; return True if it runs."""
        pid = self.broker.stats.pid(run.node.id)
        if pid is not None:
            run.process_joined(pid)
        elif run.connected:
            self.on_disconnected(run.node.id)
        return pid is not None

    def stop(self, grace: float | None = None) -> None:
        """Stop every node: SIGTERM after `grace` seconds, SIGKILL after half as many more.

        A second call can only bring the signals forward.
        """
        _log.debug("stop requested, grace %s", grace)
        if grace is not None and (not self._lifecycle.stopping or grace < self._grace):
            self._grace = grace
        self._deadlines.report_stop()
        self._carry_out(self._lifecycle.stop())
        self._ladder.start(self._grace)
        self._state.changes.changed()

    def end_in_time(self) -> None:
        """Stop every node: the dataflow has run for as long as it should.

        A node that has not called `Node()` until now has failed, also if it does so before it ends.
        """
        self._state.late |= frozenset(self._lifecycle.awaited)
        self.stop()

    def kill(self, reason: str) -> None:
        """Kill every node now; `reason` follows a node's name: `was killed because ...`."""
        _log.debug("every node is killed: %s", reason)
        self._state.kill_reason = reason
        for node in self._lifecycle.running:
            self._nodes[node].forced_reason = self._nodes[node].forced_reason or reason
        self.stop()
        self._state.changes.changed()
        for run in self._nodes.values():
            for process in (run.process, run.successor):
                if process is not None:
                    process.signal(signal.SIGKILL)

    def on_link(self, report: Status | ChannelEvent) -> None:
        """Handle a report of the link process."""
        from dorad.link import reports  # few dataflows have a link

        match report:
            case reports.ChannelEvent(name, _, "closed", _):
                self._carry_out(self._lifecycle.foreign_closed(name))
            case reports.ChannelEvent(name, _, "failed", text):
                self._carry_out(self._lifecycle.foreign_failed(name, text))
            case reports.ChannelEvent(name, _, "restarted", _):
                self._carry_out(self._lifecycle.foreign_restarted(name))
            case reports.Status():
                if self.links.update(report):
                    self._state.changed()

    def on_note(self, node_id: str, text: str) -> None:
        """Handle a line that a node reports to the user."""
        self._state.listener.note(node_id, text)

    def on_connected(self, node_id: str, pid: int) -> None:
        """Handle that a node has called `Node()`."""
        _log.debug("node %s called Node() in process %d", node_id, pid)
        run = self._nodes[node_id]
        run.cancel_drain()  # a process may create a second Node
        run.connected = True
        run.api_pid = pid
        if run.node.link is not None:
            self.links.process_attached(pid)
        run.successor_connected = run.successor_waiting
        if run.node.is_dynamic:
            run.process_joined(pid)
        self._carry_out(self._lifecycle.connected(node_id))
        self._state.changed()

    def on_waiting(self, node_id: str, pid: int) -> None:
        """Handle the hello of a process that is to replace a node's process."""
        _log.debug("node %s: process %d waits to take over", node_id, pid)
        run = self._nodes[node_id]
        # Its hello may come before its start is known here.
        run.successor_waiting = True
        self._state.changed()

    def on_outputs_done(self, node_id: str) -> None:
        """Handle that a node has dropped its `Node`."""
        _log.debug("node %s dropped its Node", node_id)
        run = self._nodes.get(node_id)
        if self._state.finished or run is None:
            return
        if run.node.is_dynamic:
            self._carry_out(self._lifecycle.outputs_done(node_id))
        elif run.result is None and run.drain_timer is None:
            loop = asyncio.get_running_loop()
            run.drain_timer = loop.call_later(DRAIN_S, self._close_outputs, run)

    def on_operator_ended(self, node_id: str, operator: str) -> None:
        """Handle that an operator has ended while others of its process run on.

        Its consumers' inputs close, unless the process may be restarted, which restarts it too.
        """
        run = self._nodes.get(node_id)
        if run is not None and not self._state.finished and not self._may_restart(run):
            self._carry_out(self._lifecycle.operator_ended(node_id, operator))

    def on_disconnected(self, node_id: str) -> None:
        """Handle that a node's connection has closed."""
        _log.debug("the connection of node %s has closed", node_id)
        run = self._nodes.get(node_id)
        if run is not None and run.node.is_dynamic:
            run.connected, run.pid = False, None
            self._state.changed()
        self.on_outputs_done(node_id)

    def _close_outputs(self, run: NodeRun) -> None:
        """Close the inputs fed by a process that still runs without a `Node`.

        They stay open if another process may follow, since that one feeds them again.
        """
        restarts = self._may_restart(run)
        _log.debug("node %s runs without a Node, may restart: %s", run.node.id, restarts)
        if run.successor is None and not restarts:
            self._carry_out(self._lifecycle.outputs_done(run.node.id))

    def _may_restart(self, run: NodeRun) -> bool:
        wanted = run.restart_requested or run.node.restart.policy is not RestartPolicy.NEVER
        return wanted and not run.stop_requested and self._lifecycle.may_restart(run.node.id)

    def _carry_out(self, decided: Iterable[actions.Action]) -> None:
        """Carry out the actions that the lifecycle decided."""
        broker, decided = self.broker, list(decided)
        for action in decided:
            _log.debug("decided: %r", action)
            match action:
                case actions.OpenBarrier():
                    self.opened = True
                    broker.notifications.open_barrier()
                case actions.AbortStart(reason):
                    self._state.listener.report("error", None, reason)
                    broker.notifications.abort_start(reason)
                case actions.CloseInput(node, name):
                    broker.notifications.close_input(node, name)
                case actions.SendNodeFailed(node, source, error, inputs):
                    broker.notifications.node_failed(node, source, error, list(inputs))
                case actions.SendNodeRestarted(node, source):
                    broker.notifications.node_restarted(node, source)
                case actions.Stop(node, reason, operator):
                    if operator is None:
                        broker.notifications.stop(node, reason)
                    else:
                        broker.notifications.stop_operator(node, operator, reason)
                    self._nodes[node].wake.set()
                case actions.StopAll():
                    self._ladder.start(self._grace)
                    self._state.changes.changed()
                    self._state.changes.when_stored(self._send_stop)
                case actions.Finish():
                    for node in self._lifecycle.dynamic:
                        broker.notifications.stop(node, actions.StopReason.MANUAL)
                    self._state.finished = True
        if decided:
            self._state.changed()

    def _send_stop(self) -> None:
        for node in (*self._lifecycle.running, *self._lifecycle.dynamic):
            # A node that is killed gets no STOP: a quick one would end with 0 before its SIGKILL.
            if not self._state.kill_reason or node in self._lifecycle.dynamic:
                self.broker.notifications.stop(node, actions.StopReason.MANUAL)
            self._nodes[node].wake.set()

    def _fail_start(self, reason: str) -> None:
        self.start_failure = reason
        self._carry_out(self._lifecycle.expire(reason))
