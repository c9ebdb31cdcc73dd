"""Commands on the nodes and edges of a running dataflow; the control API calls them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec

from dorad.control.errors import ControlError
from dorad.daemon.rules.actions import StopReason
from dorad.daemon.rules.ladder import GRACE_S, RESTART_GRACE_S
from dorad.daemon.rules.restart import RestartHistory
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.noderunner import NodeRunner
from dorad.daemon.supervisor.replacement import replace_process
from dorad.daemon.supervisor.state import SupervisorState
from dorad.daemon.supervisor.stopladder import stop_process
from dorad.dataflow.model import Dataflow, Input, NodeOutput, NodeSpec


async def start_again(state: SupervisorState, runner: NodeRunner, run: NodeRun) -> None:
    """Start a node that has ended, and open its inputs and those that it feeds.

    The link opens those on other machines.

    Raises:
        ControlError: the node would receive nothing, a queue cannot be created, or the node ends
            before it was started.
    """
    name, lifecycle = run.node.id, state.lifecycle
    if not lifecycle.may_start_again(name):
        raise ControlError("refused", f"node {name} is not restarted: all its inputs have closed")
    edges = _edges_of(state, name)
    _reopen(state, name, edges)
    state.results[:] = [result for result in state.results if result.node != name]
    run.begin_again()
    state.broker.reopen(name)
    state.broker.restarting(name, run.restarts)
    state.carry_out(lifecycle.started_again(name))
    for consumer in dict.fromkeys(each for each, _ in edges if each != name):
        state.broker.notifications.node_restarted(consumer, name, had_ended=True)
    starts = run.starts
    runner.start(run)
    await state.bell.until(lambda: run.starts > starts or run.result is not None)
    if run.starts == starts and run.result is not None:
        raise ControlError("refused", f"node {name} was not restarted: it {run.result.reason}")


def _edges_of(state: SupervisorState, name: str) -> list[tuple[str, Input]]:
    """Return the edges of a node that has ended: its own inputs, and those that it feeds.

    Without those of other nodes that have ended.
    """
    return [
        (node.id, entry)
        for node in state.lifecycle.dataflow.nodes
        if node.id == name or state.nodes[node.id].result is None
        for entry in node.all_inputs
        if isinstance(entry.source, NodeOutput) and name in (node.id, entry.source.node)
    ]


def _reopen(state: SupervisorState, name: str, edges: list[tuple[str, Input]]) -> None:
    """Replace edges by new ones: both ends know them as closed."""
    topology = state.broker.topology
    for consumer, entry in edges:
        topology.remove_edge(consumer, entry.id)
        try:
            topology.add_edge(consumer, entry)
        except OSError as error:
            _leave_closed(state, name, edges)
            raise ControlError(
                "refused", f"input {consumer}/{entry.id} cannot be opened again: {error}"
            ) from error


def _leave_closed(state: SupervisorState, name: str, edges: list[tuple[str, Input]]) -> None:
    """Keep the inputs that an ended node feeds, and keep them closed."""
    # An input without a queue is still one of the dataflow: the next command gives it one.
    state.broker.topology.update(state.lifecycle.dataflow)
    for consumer, entry in edges:
        if consumer != name:
            state.broker.notifications.close_input(consumer, entry.id)


P = ParamSpec("P")

_log = logging.getLogger(__name__)


class DetachedTasks:
    """Runs coroutines to their end, even if their callers are cancelled."""

    def __init__(self) -> None:
        self._unfinished: set[asyncio.Future[None]] = set()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in its own task and wait for it. Raises its exception.

        Raises:
            ControlError: `cancel` came first.
        """
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._done)
        await asyncio.wait((task,))
        if task.cancelled():
            raise ControlError("refused", "the dataflow does not run")
        task.result()

    def _done(self, task: asyncio.Future[None]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, which a cancelled caller does not do

    async def drain(self) -> None:
        """Wait until all are done."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    def cancel(self) -> None:
        """Cancel all that are not done."""
        for task in self._unfinished:
            task.cancel()


def _detached(
    command: Callable[Concatenate[Commands, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Commands, P], Coroutine[Any, Any, None]]:
    """Let a command finish even if its caller, such as a client that hangs up, is cancelled."""

    @functools.wraps(command)
    async def run(self: Commands, /, *args: P.args, **kwargs: P.kwargs) -> None:
        await self.detached.run(command(self, *args, **kwargs))

    return run


class Commands:
    """Changes a running dataflow: one command at a time for each node.

    Every method raises ControlError if the node does not exist, another command works on it, or it
    is in a state that does not allow the command. A `grace` is the time in seconds until SIGTERM.
    """

    def __init__(self, state: SupervisorState) -> None:
        self.detached = DetachedTasks()
        self._state = state
        self._runner: NodeRunner | None = None

    def open(self, runner: NodeRunner) -> None:
        """Accept commands from now on; `runner` runs the nodes."""
        self._runner = runner

    def close(self) -> None:
        """Refuse commands from now on, and cancel those that are not done."""
        self._runner = None
        self.detached.cancel()

    @_detached
    async def restart(self, name: str, grace: float = RESTART_GRACE_S) -> None:
        """End a node's process and start the next one, under any policy. No input closes.

        A node that has ended is started again, and the inputs that it feeds are open again.

        Raises:
            DataflowError: the program of a node that has ended cannot be started, or a secret is
                missing: then a node that runs keeps running.
        """
        with self._working_on(name, "restarted") as run:
            ended = run.result is not None and not run.node.is_dynamic
            if ended or run.node.secrets:
                self._state.listener.check_program(run.node, self._state.lifecycle.dataflow)
            if ended:
                await start_again(self._state, self._running(), run)
                return
            _refuse_unless_started(run)
            await self._restart(run, grace)

    @_detached
    async def restart_as(self, name: str, after: Dataflow) -> None:
        """End a node's process and start one of the node in `after`, which keeps its inputs.

        For a node that does not run well enough for `replace`.

        Raises:
            DataflowError: the new program cannot be started.
        """
        self._state.listener.check_program(after.node(name), after)
        with self._working_on(name, "replaced") as run:
            _refuse_unless_started(run)
            # A process that is being started is still one of the former node.
            await self._state.bell.until(lambda: not run.starting)
            self._apply(after)
            run.history = RestartHistory()
            await self._restart(run, RESTART_GRACE_S)

    async def _restart(self, run: NodeRun, grace: float) -> None:
        state, name = self._state, run.node.id
        if state.lifecycle.flow.has_drained(name):
            raise ControlError(
                "refused", f"node {name} is not restarted: all its inputs have closed"
            )
        starts = run.starts
        run.restart_requested = True
        run.grace = grace
        run.wake.set()
        state.changes.changed()
        # A process that has got STOP and ends would have ended for good.
        await self._until_stored()
        if run.process is not None:
            await stop_process(state, run, run.process, grace)
        await state.bell.until(lambda: run.starts > starts or run.result is not None)
        if run.starts == starts and run.result is not None:
            raise ControlError("refused", f"node {name} was not restarted: it {run.result.reason}")

    @_detached
    async def stop(self, name: str, grace: float = GRACE_S) -> None:
        """End a node permanently; its consumers' inputs close."""
        with self._working_on(name, "stopped") as run:
            if run.result is not None:
                raise ControlError("refused", f"node {name} has ended already")
            await self._end(run, grace)

    @_detached
    async def remove(self, name: str, after: Dataflow, grace: float = GRACE_S) -> None:
        """End a node and remove it; `after` is the dataflow without it."""
        state = self._state
        with self._working_on(name, "removed") as run:
            if run.result is None:
                run.excluded = True
                await self._end(run, grace)
            self._forget(name)
            self._apply(after)
            _log.debug("node %s is removed, %d nodes remain", name, len(state.nodes))

    @_detached
    async def add(self, node: NodeSpec, after: Dataflow) -> None:
        """Add a node and start it; `after` is the dataflow with it.

        Raises:
            DataflowError: its program cannot be started.
        """
        state, name, before = self._state, node.id, self._state.lifecycle.dataflow
        self._state.listener.check_program(node, after)
        runner = self._running()
        if name in state.nodes:
            raise ControlError("exists", f"the dataflow has a node {name} already")
        _log.debug("node %s is being added", name)
        run = state.nodes[name] = NodeRun(node, busy="added", excluded=True)
        try:
            await self._make_mailbox(node, after)
            self._apply(after)
            if node.is_dynamic:
                return
            runner.start(run)
            await state.bell.until(lambda: run.starts or run.result is not None)
            if not run.starts and run.result is not None:
                self._forget(name)
                self._apply(before)
                raise ControlError("refused", f"node {name} {run.result.reason}")
        finally:
            run.busy, run.excluded = "", False
            state.changed()

    @_detached
    async def replace(self, name: str, after: Dataflow, grace: float = GRACE_S) -> None:
        """Replace a node's process without losing a message; `after` describes the new node.

        The new process starts first. The old one is stopped once the new one has called `Node()`;
        if it does not within its `startup_timeout`, or 30 s, the old process stays.

        Raises:
            DataflowError: the new program cannot be started.
        """
        node = after.node(name)
        self._state.listener.check_program(node, after)
        runner = self._running()
        with self._working_on(name, "replaced") as run:
            _refuse_unless_started(run)
            await replace_process(
                self._state,
                runner.start_process,
                run,
                node,
                after,
                grace,
                on_replaced=lambda: self._apply(after),
            )

    def connect(self, consumer: str, entry: Input, after: Dataflow) -> None:
        """Add the input `entry` to a node; `after` is the dataflow with it."""
        self._running()
        _log.debug("node %s gets the input %s", consumer, entry)
        run = self._node(consumer)
        if run.result is not None or self._state.lifecycle.flow.has_drained(consumer):
            raise ControlError("refused", f"node {consumer} takes no more inputs: it is ending")
        try:
            self._state.broker.topology.add_edge(consumer, entry)
        except OSError as error:
            raise ControlError(
                "refused", f"input {entry.id} cannot be added to the mailbox: {error}"
            ) from error
        self._apply(after)

    def disconnect(self, consumer: str, input_id: str, after: Dataflow) -> None:
        """Remove an input of a node; `after` is the dataflow without it."""
        self._running()
        _log.debug("node %s loses the input %s", consumer, input_id)
        self._node(consumer)
        self._state.broker.topology.remove_edge(consumer, input_id)
        self._apply(after)

    def describe(self, after: Dataflow) -> None:
        """Use another description of the dataflow, with the same nodes and edges."""
        self._running()
        self._apply(after)

    async def resume(self, run: NodeRun) -> None:
        """Stop the process of a node that an earlier daemon was stopping or restarting."""
        if run.node.is_dynamic:
            await self._end_dynamic(run, GRACE_S if run.grace is None else run.grace)
            return
        await self._state.bell.until(lambda: run.process is not None or run.result is not None)
        if run.process is not None:
            default = GRACE_S if run.stop_requested else RESTART_GRACE_S
            grace = default if run.grace is None else run.grace
            await stop_process(self._state, run, run.process, grace)

    async def _until_stored(self) -> None:
        """Wait until what a command does is stored, before a process gets a packet for it."""
        stored = asyncio.get_running_loop().create_future()
        self._state.changes.when_stored(lambda: None if stored.done() else stored.set_result(None))
        await stored

    async def _make_mailbox(self, node: NodeSpec, after: Dataflow) -> None:
        state = self._state
        try:
            await state.broker.topology.add_node(node, after)
        except OSError as error:
            del state.nodes[node.id]
            raise ControlError(
                "refused", f"no mailbox can be created for node {node.id}: {error}"
            ) from error
        if state.finished:
            del state.nodes[node.id]
            raise ControlError("refused", "the dataflow has ended")

    def _forget(self, name: str) -> None:
        self._state.broker.topology.remove_node(name)
        del self._state.nodes[name]

    def _apply(self, after: Dataflow) -> None:
        """Make `after` the current dataflow."""
        state = self._state
        state.broker.topology.update(after)
        for node in after.nodes:
            if node.id in state.nodes:
                state.nodes[node.id].node = node
        state.carry_out(state.lifecycle.changed(after))
        state.listener.topology_changed(after)
        state.changed()

    def _node(self, name: str) -> NodeRun:
        run = self._state.nodes.get(name)
        if run is None:
            raise ControlError("not-found", f"the dataflow has no node {name}")
        return run

    def _running(self) -> NodeRunner:
        """Return the runner of the nodes. Raises ControlError if the dataflow does not run."""
        if self._runner is None or self._state.finished:
            raise ControlError("refused", "the dataflow does not run")
        if self._state.lifecycle.stopping:
            raise ControlError("refused", "the dataflow is being stopped")
        return self._runner

    @contextmanager
    def _working_on(self, name: str, participle: str) -> Iterator[NodeRun]:
        """Refuse other commands on the node while this one works on it."""
        self._running()
        run = self._node(name)
        if run.busy:
            raise ControlError("busy", f"node {name} is being {run.busy} already")
        _log.debug("node %s is being %s", name, participle)
        run.busy = participle
        try:
            yield run
        finally:
            run.busy = ""
            self._state.changed()

    async def _end(self, run: NodeRun, grace: float) -> None:
        """Stop a node and wait until it has ended and will not restart."""
        state = self._state
        run.stop_requested = True
        run.grace = grace
        run.wake.set()
        state.changes.changed()
        # A process that has got STOP and ends would be restarted, if that is its policy.
        await self._until_stored()
        if run.node.is_dynamic:
            await self._end_dynamic(run, grace)
            return
        # A start that has just ended has a process that is not recorded yet.
        await state.bell.until(lambda: run.process is not None or run.result is not None)
        if run.process is not None:
            await stop_process(state, run, run.process, grace)
        await state.bell.until(lambda: run.result is not None)

    async def _end_dynamic(self, run: NodeRun, grace: float) -> None:
        """Ask a dynamic node to leave; its consumers' inputs close in any case."""
        state, name = self._state, run.node.id
        state.broker.notifications.stop(name, StopReason.MANUAL)
        await state.bell.until(lambda: not run.connected or state.finished, grace)
        state.carry_out(state.lifecycle.outputs_done(name))


def _refuse_unless_started(run: NodeRun) -> None:
    name = run.node.id
    if run.node.is_dynamic:
        raise ControlError(
            "refused", f"node {name} is dynamic: dora does not start it, so it cannot restart it"
        )
    if run.result is not None:
        raise ControlError("refused", f"node {name} has ended: it {run.result.reason}")
    if not run.starts:
        raise ControlError("refused", f"node {name} is still being started")
