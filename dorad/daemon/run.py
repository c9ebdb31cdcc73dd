"""One dataflow from start to end on this machine: processes, broker and supervisor put together."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dorad.daemon.broker.admission import Admission
from dorad.daemon.broker.broker import Broker
from dorad.daemon.broker.restore import Kept, close_all
from dorad.daemon.broker.sessions import MAX_NOTES
from dorad.daemon.rules.routing import Router
from dorad.daemon.rules.stragglers import default_grace
from dorad.daemon.subscription.subscriptions import Subscriptions
from dorad.daemon.supervisor.hotreload import HotReload
from dorad.daemon.supervisor.processes import Launcher, broken_commands, log_name
from dorad.daemon.supervisor.supervisor import Supervisor
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.topology import input_name
from dorad.launch.command import python_files
from dorad.launch.fdstore import NoStore
from dorad.launch.model import LaunchError
from dorad.logs.dataflowlog import DataflowLog
from dorad.node import protocol
from dorad.shm import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dorad.control.peer import Peer
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.supervisor.noderun import NodeView
    from dorad.daemon.supervisor.ports import EdgeCounters, Event
    from dorad.daemon.supervisor.processes import NodeProcess
    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.launch.command import LaunchContext
    from dorad.launch.fdstore import FdStore
    from dorad.launch.fetch import Downloads
    from dorad.launch.helper import HelperHost
    from dorad.launch.host import KeptProcess
    from dorad.launch.spawner import Process, Spawner
    from dorad.logs.journal.writer import Journal
    from dorad.logs.record import Sink


FORMAT = f"{layout.MAGIC:x}.{protocol.VERSION}.2"
"""Of shared memory, packets, and what is kept: nodes of another one cannot be gone on with."""


START_S = 20.0
"""Seconds that a start may take at least before a time to stop after ends it."""

STORING_SHARE = 4
"""Storing how far a large dataflow is takes milliseconds, and a burst of changes comes with each
start and stop; so many times as long as it took passes until it is stored again."""

_log = logging.getLogger(__name__)


class Ended(Struct, frozen=True):
    """What is known of a dataflow when it is over."""

    results: tuple[Result, ...]
    """One for each node that was to be started, in the order of their ends."""
    edges: tuple[EdgeCounters, ...]
    seconds: float
    """From the start of the first process to the end of the last."""

    @property
    def ok(self) -> bool:
        """Whether every node ended well."""
        return all(result.ok for result in self.results)


class Inheritance(Struct, frozen=True):
    """What an earlier daemon has left of a dataflow that goes on."""

    descriptors: dict[str, tuple[int, ...]]
    processes: tuple[KeptProcess, ...]
    snapshot: dict[str, Any]
    started_at: float
    """When it was started, in seconds since 1970."""


def new_dataflow_id() -> str:
    """Return the name of one run of a dataflow: a UUID."""
    return str(uuid.uuid4())


class DataflowRun:
    """Runs a dataflow once. No process, task, descriptor or socket of it outlives `run`."""

    def __init__(
        self,
        dataflow_id: str,
        context: LaunchContext,
        spawner: Spawner,
        socket: Path,
        *,
        name: str | None = None,
        log_dir: Path | None = None,
        journal: Journal | None = None,
        watch: Sink | None = None,
        store: FdStore | None = None,
        marker: str | None = None,
        admits: Callable[[Peer], bool] | None = None,
        may_use: Callable[[NodeSpec, Peer], bool] = lambda node, peer: peer.uid in (0, os.getuid()),
        helpers: HelperHost | None = None,
        downloads: Downloads | None = None,
        exit_when_nodes_finish: bool | None = None,
        stop_after: float | None = None,
        params: Mapping[str, dict[str, Any]] | None = None,
        hot_reload: bool = False,
        inherited: Inheritance | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_happening: Event = lambda what, node, text, data: None,
        forget: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """Prepare a run; no node is started yet.

        Nodes reach the broker at `socket`, log files lie in `log_dir` (None: beside the dataflow's
        file) unless lines go to the `journal`, which is owned, and `watch` gets what they print and
        what there is to say about the run. The flag `exit_when_nodes_finish` overrides the file's;
        `stop_after` is in seconds from the opening of the start barrier; a start that takes as
        long as that, and 20 s, is stopped, too. `params` are the values that each node starts with.
        With `hot_reload` nodes and operators take up changes of their Python files.

        For a daemon: `admits` tells which other users' processes may connect at all, and `may_use`
        which processes may attach as a dynamic node; `helpers` starts helpers and
        `downloads` keeps nodes whose path is a URL; `store` keeps
        descriptors and `marker` marks processes for the next daemon;
        `on_change` is called when `snapshot()` would differ, and `forget` with the pid of an ended
        process after that. `inherited` is what an earlier daemon left, and its snapshot.

        Raises:
            DataflowError: a node's program is missing, or it may not be run.
            ValueError: a variable of the environment cannot be understood.
        """
        problems = () if inherited is not None else broken_commands(context)
        if problems:
            raise DataflowError(problems)
        self.dataflow_id = dataflow_id
        self._context = context
        self._spawner = spawner
        self._socket = socket
        self._store = NoStore() if store is None else store
        self._marker = marker
        self._stop_after = stop_after
        self._inherited = inherited
        self._on_change = on_change
        self._store_from = 0.0
        """When a change may be stored again, on the loop's clock."""
        self._storing: asyncio.TimerHandle | None = None
        """Set while changes wait for that."""
        self._forget = forget
        self._admits = admits
        self._admission = Admission(may_use)
        self.notes: dict[str, list[str]] = {}
        """What the processes of nodes lack of what they were to have, one line each."""
        if inherited is not None:
            self.notes |= inherited.snapshot.get("notes", {})
        self._living: dict[int, NodeProcess] = {}
        self.log = DataflowLog(
            dataflow_id,
            context.dataflow,
            folder=log_dir,
            name=name,
            started_at=None if inherited is None else inherited.started_at,
            watch=watch,
            route=lambda batch: self._router.route(batch),
            journal=journal,
        )
        wanted = exit_when_nodes_finish
        self._supervisor = Supervisor(
            context.dataflow,
            self._make_broker,
            self.log.say,
            exit_when_nodes_finish=bool(
                context.dataflow.exit_when_nodes_finish if wanted is None else wanted
            ),
            finish_grace=default_grace(context.environ),
            restored=None if inherited is None else inherited.snapshot["supervisor"],
            on_change=self._changed,
            on_happening=on_happening,
        )
        for node_id, values in (params or {}).items():
            self.broker.set_params(node_id, values)
        # Only now: what there is from the start is no change.
        self.broker.on_change = self._changed
        self.subscriptions = Subscriptions(self.broker, helpers)
        self._router = Router(dataflow_id, self.broker)
        self._router.update(context.dataflow)
        self._hot_reload = (
            HotReload(self, functools.partial(python_files, context), self.log.say, self._changed)
            if hot_reload
            else None
        )
        self._launcher = Launcher(
            dataflow_id,
            spawner,
            context,
            self.log,
            store=self._store,
            marker=marker,
            note=self._note,
            downloads=downloads,
        )

    async def run(self) -> Ended:
        """Start every node and return when all is over.

        Raises:
            LaunchError: no process can be started at all.
            OSError: shared memory or the socket cannot be made.
        """
        begun = time.monotonic()
        kept = self._inherited
        found = 0 if kept is None else len(kept.processes)
        _log.debug("dataflow %s at %s, %d processes found", self.dataflow_id, self._socket, found)
        async with AsyncExitStack() as stack:
            stack.callback(self.log.close)
            self.log.begin()
            stack.callback(self._end_what_is_left)
            stack.push_async_callback(self.broker.close)
            stack.push_async_callback(self.subscriptions.close)
            stack.callback(self._write_down)
            await self.broker.open(
                None if kept is None else Kept(kept.descriptors, kept.snapshot["broker"])
            )
            if self._stop_after is not None:
                stopping = asyncio.create_task(self._stop_in_time(self._stop_after), name="stop")
                stack.push_async_callback(_ended, stopping)
            adopted = None if kept is None else self._adopt(kept)
            if self._hot_reload is not None:
                self._hot_reload.begin(None if kept is None else kept.snapshot.get("files"))
                watching = asyncio.create_task(self._hot_reload.watch(), name="hot reload")
                stack.push_async_callback(_ended, watching)
            results = await self._supervisor.run(self._start, adopted)
            edges = tuple(self.broker.counters())
            ended = Ended(results, edges, time.monotonic() - begun)
            _log.debug("dataflow %s ends, ok: %s", self.dataflow_id, ended.ok)
            self.log.end("finished" if ended.ok else "failed")
        return ended

    # -- knowing -----------------------------------------------------------------------------

    @property
    def dataflow(self) -> Dataflow:
        """The dataflow as it is now."""
        return self._supervisor.dataflow

    @property
    def opened(self) -> bool:
        """Whether the start barrier has opened."""
        return self._supervisor.opened_at is not None

    @property
    def spawned(self) -> bool:
        """Whether the process of every node has been started, or could not be."""
        return all(
            view.pid is not None or view.last_exit is not None or view.status == "stopped"
            for node, view in self.statuses().items()
            if not self.dataflow.node(node).is_dynamic
        )

    def statuses(self) -> dict[str, NodeView]:
        """Return how every node is doing."""
        return self._supervisor.statuses()

    def status(self, node_id: str) -> NodeView | None:
        """Return how one node is doing; None if there is no such node."""
        return self._supervisor.status(node_id)

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon needs to go on, as JSON-able values."""
        return {
            "format": FORMAT,
            "supervisor": self._supervisor.snapshot(),
            "broker": self.broker.snapshot(),
            "notes": self.notes,
            **({} if self._hot_reload is None else {"files": self._hot_reload.snapshot()}),
        }

    # -- ending ------------------------------------------------------------------------------

    def stop(self, grace: float | None = None) -> None:
        """Ask every node to end: SIGTERM after `grace` seconds (10), SIGKILL after half as many."""
        self._supervisor.stop(grace)

    def kill(self, why: str) -> None:
        """Kill every node now; `why` goes on after a node's name in the report."""
        self._supervisor.kill(why)

    def abandon(self) -> None:
        """Remove the one file there is, for a process that is about to exit without more ado."""
        self._socket.unlink(missing_ok=True)

    async def _stop_in_time(self, seconds: float) -> None:
        """Stop `seconds` after the barrier opened; or when that is overdue."""
        opened_at = await self._supervisor.until_opened(max(seconds, START_S))
        if opened_at is not None:
            await asyncio.sleep(opened_at + seconds - asyncio.get_running_loop().time())
        _log.debug("dataflow %s: %g s are over, opened at %s", self.dataflow_id, seconds, opened_at)
        self._supervisor.stop()

    # -- changing ----------------------------------------------------------------------------

    async def add_node(self, node: NodeSpec, after: Dataflow) -> None:
        """Start one more node. This and the following raise CommandError; this, DataflowError."""
        self._check_command(node, after)
        await self._supervisor.add_node(node, after)
        self._rewired(after)

    async def remove_node(self, node_id: str, after: Dataflow, grace: float) -> None:
        """End a node and take it out; `grace` in seconds as in `stop`."""
        await self._supervisor.remove_node(node_id, after, grace)
        self._rewired(after)

    async def replace_node(self, node_id: str, after: Dataflow, grace: float) -> None:
        """Put another process in a node's place. Raises DataflowError: it could not be started."""
        node = after.node(node_id)
        self._check_command(node, after)
        await self._supervisor.replace_node(node_id, node, after, grace)
        self._rewired(after)

    async def restart_node(self, node_id: str, grace: float) -> None:
        """End a node's process and start the next one, whatever its policy."""
        await self._supervisor.restart_node(node_id, grace)

    def reload(self, node_id: str, operator: str) -> None:
        """Let an operator load its file anew."""
        self.broker.reload(node_id, operator)

    async def stop_node(self, node_id: str, grace: float) -> None:
        """End a node for good."""
        await self._supervisor.stop_node(node_id, grace)

    def connect(self, target: str, after: Dataflow) -> None:
        """Add the edge that ends at `target`, a `node/input`."""
        consumer, _, name = target.partition("/")
        node = after.node(consumer)
        entry = next(e for e in node.all_inputs if e.id == input_name(node, name))
        self._supervisor.connect(consumer, entry, after)
        self._rewired(after)

    def disconnect(self, target: str, after: Dataflow) -> None:
        """Take the edge away that ends at `target`, a `node/input`."""
        consumer, _, name = target.partition("/")
        name = input_name(after.node(consumer), name)
        self._supervisor.disconnect(consumer, name, after)
        self._rewired(after)

    def set_params(self, node_id: str, values: Mapping[str, Any]) -> None:
        """Give the node's next process these parameters."""
        self.broker.set_params(node_id, values)

    def set_param(self, node_id: str, key: str, value: Any) -> bool:
        """Set a parameter; False if the node has no process yet to be told of it."""
        return self.broker.param_update(node_id, key, value)

    def delete_param(self, node_id: str, key: str, **default: Any) -> None:
        """Delete a parameter; one that is declared has its `value` from then on."""
        self.broker.param_deleted(node_id, key, **default)

    def _check_command(self, node: NodeSpec, after: Dataflow) -> None:
        alone = replace(after, nodes=(node,))
        problems = broken_commands(replace(self._context, dataflow=alone))
        if problems:
            raise DataflowError(problems)

    def _rewired(self, after: Dataflow) -> None:
        self.log.update(after)
        self._router.update(after)

    # -- processes ---------------------------------------------------------------------------

    async def _start(self, node: NodeSpec, node_config: str, restart_count: int) -> NodeProcess:
        self.notes.pop(node.id, None)
        process = None
        self._admission.begin(node.id)
        try:
            process = await self._launcher.start(node, node_config, restart_count)
        finally:
            self._admission.end(node.id, process)
        self._living[process.pid] = process
        return process

    def _adopt(self, kept: Inheritance) -> dict[str, NodeProcess]:
        """Return the processes of nodes that run, or have ended since the snapshot."""
        adopted: dict[str, NodeProcess] = {}
        attached = kept.snapshot["broker"].get("attached", {})
        for found in sorted(kept.processes, key=lambda each: _preference(each, attached)):
            _, node_id, *_ = found.tag.split("/")
            descriptors = kept.descriptors.pop(log_name(found.tag), ())
            try:
                node = self.dataflow.node(node_id)
                config = self.broker.node_config(node_id)
                process = self._launcher.adopt(node, found.process, found.tag, descriptors, config)
            except (KeyError, LaunchError) as error:
                self.log.say("error", node_id, f"its process {found.pid} is ended: {error}")
                found.process.signal(signal.SIGKILL)
                self._forget(found.pid)
                continue
            _log.debug("process %d is taken over as node %s", found.pid, node_id)
            self._living[process.pid] = process
            self._admission.add(node_id, process)
            other = adopted.get(node_id)
            if other is not None:
                # It was being replaced, which nobody goes on with.
                other.signal(signal.SIGKILL)
            adopted[node_id] = process
        return adopted

    def _end_what_is_left(self) -> None:
        """End processes and close descriptors that a fault of ours has left to nobody."""
        kept = self._inherited
        left: dict[int, Process | NodeProcess] = {}
        if kept is not None:
            left = {found.pid: found.process for found in kept.processes if found.exit is None}
            for name, descriptors in kept.descriptors.items():
                self._store.drop(name)
                close_all(descriptors)
        left |= {pid: process for pid, process in self._living.items() if not process.ended}
        for pid, process in left.items():
            _log.debug("process %d is left over and killed", pid)
            process.signal(signal.SIGKILL)
            self._forget(pid)

    def _note(self, node_id: str, text: str) -> None:
        """Tell the user now, and whoever asks for the node later."""
        self.log.say("warn", node_id, text)
        _log.debug("note of node %s: %r", node_id, text)
        notes = self.notes.setdefault(node_id, [])
        if text not in notes:
            notes.append(text)
            del notes[:-MAX_NOTES]
        self._changed()

    def _changed(self) -> None:
        """Have it stored how far this is: at once, unless a burst of changes took long to store."""
        if self._storing is None:
            if time.monotonic() >= self._store_from:
                self._write_down()
            else:
                loop = asyncio.get_running_loop()
                self._storing = loop.call_at(self._store_from, self._write_down)

    def _write_down(self) -> None:
        if self._storing is not None:
            self._storing.cancel()
            self._storing = None
        begun = time.monotonic()
        self._on_change()
        ended = time.monotonic()
        self._store_from = ended + STORING_SHARE * (ended - begun)
        current = {view.pid for view in self.statuses().values()}
        for pid, process in list(self._living.items()):
            if process.ended and pid not in current:
                del self._living[pid]
                self._forget(pid)

    def _make_broker(self, listener: Supervisor) -> Broker:
        self.broker = Broker(
            self._context.dataflow,
            self.dataflow_id,
            self._socket,
            listener,
            store=self._store,
            admits=self._admits,
            admission=self._admission,
        )
        self.broker.on_note = self._note
        return self.broker


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})


def _preference(found: KeptProcess, attached: Mapping[str, int]) -> tuple[bool, bool, int]:
    """Return what sorts the process that a node goes on with last: alive, attached, youngest."""
    return found.exit is None, found.pid in attached.values(), found.started
