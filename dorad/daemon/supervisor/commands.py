"""Commands on a running dataflow: stop, restart, add, remove and replace nodes; edges."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dorad.daemon.errors import CommandError
from dorad.daemon.rules.actions import StopReason
from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.exits import describe
from dorad.daemon.rules.ladder import GRACE_S, RESTART_GRACE_S, Step, ladder
from dorad.daemon.rules.restart import History
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dorad.daemon.supervisor.ports import Started, StartNode
    from dorad.daemon.supervisor.shared import Shared
    from dorad.dataflow.model import Dataflow, Input, NodeSpec

STARTUP_S = 30.0
"""Seconds that a replacement has for calling `Node()`, unless its `startup_timeout` says more."""

_log = logging.getLogger(__name__)


class Commands:
    """What can be asked of a dataflow that runs; one command at a time for each node.

    Every method raises CommandError when it does not do what it says.
    """

    def __init__(
        self, shared: Shared, start: StartNode, run_node: Callable[[NodeRun], None]
    ) -> None:
        """`run_node` begins to see a new node through its life."""
        self._shared = shared
        self._start = start
        self._tend = run_node

    # -- one node ----------------------------------------------------------------------------

    async def restart(self, name: str, grace: float) -> None:
        """End a node's process and start the next one, whatever its policy; no input closes."""
        with self._at_work(name, "restarted") as run:
            self._refuse_unless_spawned(run)
            if self._shared.life.flow.has_drained(name):
                raise CommandError(
                    "refused",
                    f"all inputs of node {name} have closed: it is not started again",
                )
            runs = run.runs
            run.again = True
            run.grace = grace
            run.wake.set()
            self._shared.on_change()
            if run.process is not None:
                await self._escalate(run, run.process, grace)
            await self._shared.bell.until(lambda: run.runs > runs or run.result is not None)
            if run.runs == runs and run.result is not None:
                raise CommandError(
                    "refused", f"node {name} was not started again: it {run.result.reason}"
                )

    async def stop(self, name: str, grace: float) -> None:
        """End a node for good; its consumers' inputs close."""
        with self._at_work(name, "stopped") as run:
            if run.result is not None:
                raise CommandError("refused", f"node {name} has ended already")
            await self._finish(run, grace)

    async def remove(self, name: str, dataflow: Dataflow, grace: float) -> None:
        """End a node and take it out; `dataflow` is the dataflow without it."""
        with self._at_work(name, "removed") as run:
            if run.result is None:
                run.apart = True
                await self._finish(run, grace)
            shared = self._shared
            shared.broker.topology.remove_node(name)
            del shared.nodes[name]
            self._changed(dataflow)

    async def add(self, node: NodeSpec, dataflow: Dataflow) -> None:
        """Start one more node; `dataflow` is the dataflow with it."""
        shared, name, before = self._shared, node.id, self._shared.life.dataflow
        self._refuse_if_stopping()
        if name in shared.nodes:
            raise CommandError("exists", f"the dataflow has a node {name} already")
        _log.debug("node %s is being added", name)
        run = shared.nodes[name] = NodeRun(node, busy="added", apart=True)
        try:
            await self._make_mailbox(node, dataflow)
            self._changed(dataflow)
            if node.is_dynamic:
                return
            self._tend(run)
            await shared.bell.until(lambda: run.runs or run.result is not None)
            if not run.runs and run.result is not None:
                shared.broker.topology.remove_node(name)
                del shared.nodes[name]
                self._changed(before)
                raise CommandError("refused", f"node {name} {run.result.reason}")
        finally:
            run.busy, run.apart = "", False
            shared.changed()

    async def _make_mailbox(self, node: NodeSpec, dataflow: Dataflow) -> None:
        shared = self._shared
        try:
            await shared.broker.topology.add_node(node, dataflow)
        except OSError as error:
            del shared.nodes[node.id]
            raise CommandError("refused", f"node {node.id} gets no mailbox: {error}") from error
        if shared.finished:
            del shared.nodes[node.id]
            raise CommandError("refused", "the dataflow has ended")

    async def replace(self, name: str, node: NodeSpec, dataflow: Dataflow, grace: float) -> None:
        """Put another process, made as `node` says, in the place of a node's.

        The new one is started first, and the old one goes only when it has called `Node()`;
        nothing that is sent meanwhile is lost. `dataflow` is the dataflow as it then is.
        """
        shared = self._shared
        with self._at_work(name, "replaced") as run:
            self._refuse_unless_spawned(run)
            if shared.life.barrier.phase is not Phase.OPEN:
                raise CommandError("busy", "the dataflow is still starting")
            old = run.process
            if old is None or not run.connected or not shared.life.may_restart(name):
                raise CommandError(
                    "refused",
                    f"node {name} is {run.status}: only one that runs can be replaced",
                )
            try:
                shared.broker.handovers.begin(name, node, dataflow)
            except OSError as error:
                raise CommandError("refused", f"node {name} is not replaced: {error}") from error
            except ValueError as error:
                # One that an earlier daemon began, and whose processes sort it out themselves.
                raise CommandError("busy", str(error), "try again when that has ended") from error
            successor = await self._successor(run, node, node.startup_timeout or STARTUP_S)
            if run.successor is successor:
                await self._escalate(run, old, grace)
            run.node = node
            run.history = History(window_start=run.spawned)
            self._changed(dataflow)
            await shared.bell.until(
                lambda: run.connected or run.process is not successor, STARTUP_S
            )

    async def _successor(self, run: NodeRun, node: NodeSpec, seconds: float) -> Started:
        """Start the process that is to follow, and wait until it has said hello."""
        shared, name = self._shared, node.id
        why = ""
        try:
            process = await self._start(node, shared.broker.node_config(name), run.restarts + 1)
        except LaunchError as error:
            shared.broker.handovers.end(name)
            raise CommandError("refused", f"the new {name} could not be started: {error}") from None
        except BaseException:
            shared.broker.handovers.end(name)
            raise
        run.successor = process
        ended = asyncio.ensure_future(process.wait())
        ended.add_done_callback(lambda _: shared.bell.ring())
        try:
            came = await shared.bell.until(
                lambda: run.successor_waits or run.successor is not process or ended.done(),
                seconds,
            )
            if run.successor is not process:
                return process  # the old one has ended by itself
            if ended.done():
                why = f"the new {name} {describe(ended.result())} before it called Node()"
            elif not came:
                why = f"the new {name} did not call Node() within {seconds:g} s"
            else:
                return process
        finally:
            if why or (not ended.done() and run.successor is process and not run.successor_waits):
                run.successor, run.successor_waits = None, False
                process.signal(signal.SIGKILL)
                await asyncio.wait((ended,))
                shared.broker.handovers.end(name)
            ended.cancel()
        raise CommandError("refused", f"{why}; node {name} goes on as it was")

    async def go_on(self, run: NodeRun) -> None:
        """End the process of a node that an earlier daemon was about to stop or to restart."""
        await self._shared.bell.until(lambda: run.process is not None or run.result is not None)
        if run.process is not None:
            usual = GRACE_S if run.stopped else RESTART_GRACE_S
            await self._escalate(run, run.process, usual if run.grace is None else run.grace)

    # -- edges -------------------------------------------------------------------------------

    def connect(self, consumer: str, entry: Input, dataflow: Dataflow) -> None:
        """Add an input to a node; `dataflow` is the dataflow with it."""
        self._refuse_if_stopping()
        _log.debug("node %s gets the input %s", consumer, entry)
        run = self._node(consumer)
        if run.result is not None or self._shared.life.flow.has_drained(consumer):
            raise CommandError("refused", f"node {consumer} takes no more input: it is ending")
        try:
            self._shared.broker.topology.add_edge(consumer, entry)
        except OSError as error:
            raise CommandError("refused", f"input {entry.id} gets no room: {error}") from error
        self._changed(dataflow)

    def disconnect(self, consumer: str, input_id: str, dataflow: Dataflow) -> None:
        """Take an input away from a node; `dataflow` is the dataflow without it."""
        self._refuse_if_stopping()
        _log.debug("node %s loses the input %s", consumer, input_id)
        self._node(consumer)
        self._shared.broker.topology.remove_edge(consumer, input_id)
        self._changed(dataflow)

    # -- what they have in common ------------------------------------------------------------

    def _changed(self, dataflow: Dataflow) -> None:
        shared = self._shared
        shared.broker.topology.update(dataflow)
        for node in dataflow.nodes:
            if node.id in shared.nodes:
                shared.nodes[node.id].node = node
        shared.carry_out(shared.life.changed(dataflow))
        shared.changed()

    def _node(self, name: str) -> NodeRun:
        run = self._shared.nodes.get(name)
        if run is None:
            raise CommandError("not-found", f"the dataflow has no node {name}")
        return run

    def _refuse_if_stopping(self) -> None:
        if self._shared.life.stopping:
            raise CommandError("refused", "the dataflow is being stopped")

    def _refuse_unless_spawned(self, run: NodeRun) -> None:
        name = run.node.id
        if run.node.is_dynamic:
            raise CommandError("refused", f"node {name} is dynamic: whoever started it has to")
        if run.result is not None:
            raise CommandError("refused", f"node {name} has ended: it {run.result.reason}")
        if not run.runs:
            raise CommandError("refused", f"node {name} is still being started")

    @contextmanager
    def _at_work(self, name: str, word: str) -> Iterator[NodeRun]:
        """Keep other commands from the node while this one is at work on it."""
        self._refuse_if_stopping()
        run = self._node(name)
        if run.busy:
            raise CommandError("busy", f"node {name} is just being {run.busy}")
        _log.debug("node %s is being %s", name, word)
        run.busy = word
        try:
            yield run
        finally:
            run.busy = ""
            self._shared.changed()

    async def _finish(self, run: NodeRun, grace: float) -> None:
        """See to it that a node ends for good."""
        shared, name = self._shared, run.node.id
        run.stopped = True
        run.grace = grace
        run.wake.set()
        shared.on_change()
        if run.node.is_dynamic:
            shared.broker.notifications.stop(name, StopReason.MANUAL)
            await shared.bell.until(lambda: not run.connected, grace)
            shared.carry_out(shared.life.outputs_done(name))
            return
        if run.process is not None:
            await self._escalate(run, run.process, grace)
        await shared.bell.until(lambda: run.result is not None)

    async def _escalate(self, run: NodeRun, process: Started, grace: float) -> None:
        """Walk up the stop ladder with one process, until it has ended."""
        shared, name, loop = self._shared, run.node.id, asyncio.get_running_loop()
        begun = loop.time()
        for step in ladder(grace):
            _log.debug("node %s, process %d: %s at %g s", name, process.pid, step.step, step.after)
            left = begun + step.after - loop.time()
            if await shared.bell.until(lambda: run.process is not process, left):
                return
            match step.step:
                case Step.EVENT:
                    if not run.successor_connected:
                        shared.broker.notifications.stop(name, StopReason.MANUAL)
                case Step.TERMINATE:
                    text = f"did not end within {step.after:g} s of being asked to: SIGTERM"
                    shared.notice("warn", name, text)
                    process.signal(signal.SIGTERM)
                case Step.KILL:
                    run.forced = (
                        f"was killed because it did not end within {step.after:g} s of being asked"
                        " to stop"
                    )
                    shared.on_change()
                    process.signal(signal.SIGKILL)
        await shared.bell.until(lambda: run.process is not process)
