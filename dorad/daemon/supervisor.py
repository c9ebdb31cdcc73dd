"""The supervisor: starts the nodes of a dataflow, carries out decisions, knows how each ended."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from dorad.daemon import actions
from dorad.daemon.barrier import Phase
from dorad.daemon.exits import History, Outcome, Result, classify, not_started
from dorad.daemon.ladder import GRACE_S, Step, ladder
from dorad.daemon.lifecycle import Lifecycle
from dorad.daemon.stragglers import next_look, stragglers
from dorad.daemon.watch import IdleWatch
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.daemon.ports import Broker, Notice, Started, StartNode
    from dorad.dataflow.model import Dataflow, Node

LINGER_S = 0.25
"""A process that drops its `Node` is mostly about to end. Its consumers hear of it when it has, and
then also whether it failed; or after this time, if it lives on."""

PATIENCE_S = 10.0
"""Seconds after which the user is told for which nodes the start is waiting."""

LOOK_S = 1.0
"""Seconds between looks at nodes that may have become stragglers, at most."""


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
    ) -> None:
        """Make a supervisor that has started nothing yet.

        `grace` is that of the stop ladder and `finish_grace` that of the straggler rule, both in
        seconds; None turns the straggler rule off.
        """
        self.dataflow = dataflow
        self.broker = make_broker(self)
        self.results: list[Result] = []
        """In the order in which the nodes ended."""
        self.opened_at: float | None = None
        """When the barrier opened, on the loop's clock."""
        self._notice = notice
        self._grace = grace
        self._finish_grace = finish_grace
        self._life = Lifecycle(dataflow, exit_when_nodes_finish=exit_when_nodes_finish)
        self._dynamic = {node.id for node in dataflow.nodes if node.is_dynamic}
        self._processes: dict[str, Started] = {}
        self._connected: set[str] = set()
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._changed = asyncio.Event()
        self._forced: dict[str, str] = {}
        """Why a node's end by a signal of ours counts against it."""
        self._killing = False

    async def run(self, start: StartNode) -> tuple[Result, ...]:
        """Start every node and return when the dataflow has ended and every process with it."""
        loop = asyncio.get_running_loop()
        patience = loop.call_later(PATIENCE_S, self._tell_who_is_awaited)
        try:
            async with asyncio.TaskGroup() as tasks:
                for node in self.dataflow.nodes:
                    if not node.is_dynamic:
                        tasks.create_task(self._tend(node, start), name=f"node {node.id}")
                background = (
                    tasks.create_task(self._climb(), name="stop ladder"),
                    tasks.create_task(self._watch_stragglers(), name="straggler rule"),
                )
                self._carry_out(self._life.begin())
                await self._finished.wait()
                for task in background:
                    task.cancel()
        finally:
            patience.cancel()
            for handle in self._lingering.values():
                handle.cancel()
        return tuple(self.results)

    def stop(self) -> None:
        """Ask every node to end, and see to it that it does. Idempotent."""
        self._carry_out(self._life.stop())

    def kill(self, why: str) -> None:
        """Kill every node at once; `why` goes on after a node's name: `was killed, because ...`."""
        self._killing = True
        for node in self._life.running:
            self._forced.setdefault(node, why)
        self.stop()
        for process in self._processes.values():
            process.signal(signal.SIGKILL)

    def on_connected(self, node_id: str, pid: int) -> None:
        """Take note that a node called `Node()`."""
        handle = self._lingering.pop(node_id, None)
        if handle is not None:  # one process may make a second Node
            handle.cancel()
        self._connected.add(node_id)
        self._carry_out(self._life.connected(node_id))

    def on_outputs_done(self, node_id: str) -> None:
        """Take note that a node dropped its `Node`."""
        if self._finished.is_set():
            return
        if node_id in self._dynamic:
            self._carry_out(self._life.outputs_done(node_id))
        elif node_id in self._life.running and node_id not in self._lingering:
            loop = asyncio.get_running_loop()
            self._lingering[node_id] = loop.call_later(
                LINGER_S, lambda: self._carry_out(self._life.outputs_done(node_id))
            )

    def on_disconnected(self, node_id: str) -> None:
        """Take note that the socket of a node is gone."""
        if node_id in self._dynamic:
            self._connected.discard(node_id)
        self.on_outputs_done(node_id)

    async def _tend(self, node: Node, start: StartNode) -> None:
        """See one node through its life."""
        result = await self._live(node, start)
        self._processes.pop(node.id, None)
        self._connected.discard(node.id)
        handle = self._lingering.pop(node.id, None)
        if handle is not None:
            handle.cancel()
        self.results.append(result)
        if not result.ok and result.outcome is not Outcome.CASCADING:
            self._notice("error", node.id, result.reason)
        self.broker.detach(node.id)
        self._carry_out(self._life.after_exit(result))

    async def _live(self, node: Node, start: StartNode) -> Result:
        """Start one node and wait for its end."""
        try:
            process = await self._start_unless_stopped(node, start)
        except LaunchError as error:
            return not_started(node.id, str(error))
        if process is None:
            return Result(node.id, Outcome.OK, None, "was stopped before it was started")
        self._processes[node.id] = process
        if self._killing:
            process.signal(signal.SIGKILL)
        exit_ = await process.wait()
        return classify(node.id, exit_, self._history(node.id), process.stderr)

    async def _start_unless_stopped(self, node: Node, start: StartNode) -> Started | None:
        """Start a node, which may take long (a download); None if a stop came first."""
        starting = asyncio.ensure_future(start(node, self.broker.node_config(node.id)))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
        finally:
            stopped.cancel()
            starting.cancel()
            await asyncio.wait((starting, stopped))
        return None

    def _history(self, node: str) -> History:
        culprit = self._life.barrier.culprit
        return History(
            stopping=self._life.stopping,
            forced=self._forced.get(node, ""),
            culprit=culprit if culprit != node else None,
        )

    def _carry_out(self, todo: Iterable[actions.Action]) -> None:
        """Do what was decided."""
        self._changed.set()
        broker = self.broker
        for action in todo:
            match action:
                case actions.OpenBarrier():
                    self.opened_at = asyncio.get_running_loop().time()
                    broker.open_barrier()
                case actions.Poison(reason):
                    broker.poison(reason)
                case actions.CloseInput(node, name):
                    broker.close_input(node, name)
                case actions.TellFailed(node, source, error, inputs):
                    broker.node_failed(node, source, error, list(inputs))
                case actions.Stop(node, reason):
                    broker.stop(node, reason)
                case actions.StopAll():
                    self._send_stop()
                    self._stopping.set()
                case actions.Finish():
                    for node in self._dynamic:
                        broker.stop(node, actions.StopReason.MANUAL)
                    self._finished.set()

    def _send_stop(self) -> None:
        for node in (*self._life.running, *self._dynamic):
            self.broker.stop(node, actions.StopReason.MANUAL)

    async def _climb(self) -> None:
        """Walk up the stop ladder once a stop has begun; its first rung is taken by then."""
        await self._stopping.wait()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for rung in ladder(self._grace):
            await asyncio.sleep(begun + rung.after - loop.time())
            match rung.step:
                case Step.EVENT:
                    continue
                case Step.TERMINATE:
                    for node, process in self._processes.items():
                        text = f"did not end within {rung.after:g} s of being asked to: SIGTERM"
                        self._notice("warn", node, text)
                        process.signal(signal.SIGTERM)
                case Step.KILL:
                    self.kill(
                        f"was killed because it did not end within {rung.after:g} s of being"
                        " asked to stop"
                    )

    async def _watch_stragglers(self) -> None:
        """Stop the dataflow when only stragglers are left."""
        loop = asyncio.get_running_loop()
        watch = IdleWatch(self.dataflow, self._life, self.broker, loop.time, self._finish_grace)
        while not self._stopping.is_set():
            self._changed.clear()
            remaining = watch.look(self._connected)
            found = stragglers(remaining, loop.time())
            for straggler in found:
                self._notice("warn", straggler.node, f"{straggler.reason}; stopping it")
                self._forced[straggler.node] = f"was stopped by force: {straggler.reason}"
            if found:
                self.stop()
                return
            wait = next_look(remaining, loop.time())
            try:
                async with asyncio.timeout(None if wait is None else min(wait, LOOK_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _tell_who_is_awaited(self) -> None:
        pending = self._life.barrier.pending
        if self._life.barrier.phase is Phase.WAITING and pending:
            names = ", ".join(sorted(pending))
            self._notice("warn", None, f"the start still waits for Node() in: {names}")
