"""One run of a dataflow on this machine: its processes, broker, supervisor and log together."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dorad.daemon.broker.admission import Admission
from dorad.daemon.broker.broker import Broker
from dorad.daemon.broker.restore import Kept
from dorad.daemon.broker.sessions import MAX_NOTES
from dorad.daemon.nodeprocesses import NodeProcesses
from dorad.daemon.rules.routing import Router
from dorad.daemon.rules.stragglers import default_grace
from dorad.daemon.runmodel import DEFAULT_OPTIONS, FORMAT, NO_DAEMON, Ended
from dorad.daemon.sharelink import ShareLink
from dorad.daemon.storing import StoreThrottle
from dorad.daemon.supervisor.processes import Launcher, broken_commands
from dorad.daemon.supervisor.supervisor import Supervisor
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.model import LINK
from dorad.int64 import clamped
from dorad.launch.command import python_files
from dorad.launch.model import LaunchError
from dorad.launch.secrets import newer_secrets
from dorad.logs.dataflowlog import DataflowLog

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.messages import LinkChannel
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.runmodel import Inheritance, RunOptions, RunServices
    from dorad.daemon.subscription.subscriptions import Subscriptions
    from dorad.daemon.supervisor.hotreload import HotReload
    from dorad.daemon.supervisor.processes import NodeProcess
    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.launch.command import LaunchContext
    from dorad.launch.spawner import Spawner
    from dorad.logs.journal.writer import Journal
    from dorad.logs.record import Sink


NOT_COPIED = (
    "a start copies no programs: `dorafleet push` copies one to robots, "
    "`deploy.working_dir` names another folder"
)
"""What to do about a file that a machine of a fleet lacks."""

_log = logging.getLogger(__name__)


def new_dataflow_id() -> str:
    """Return a UUID, which names one run of a dataflow."""
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
        options: RunOptions = DEFAULT_OPTIONS,
        services: RunServices = NO_DAEMON,
        inherited: Inheritance | None = None,
    ) -> None:
        """Prepare a run; no node is started yet.

        Nodes connect to the broker at `socket`. Log files are written to `log_dir` (None: beside
        the dataflow's file), or lines to the `journal`, which this run closes. `watch` gets the
        lines of nodes and of the daemon. `inherited` is what an earlier daemon left.

        Raises:
            DataflowError: the program of a node is missing or forbidden.
            ValueError: an environment variable has an invalid value.
            ControlError: the certificates of the share cannot be read.
        """
        hint = None if options.share is None else NOT_COPIED
        problems = () if inherited is not None else broken_commands(context, hint)
        if problems:
            raise DataflowError(problems)
        self.dataflow_id = dataflow_id
        self.notes: dict[str, list[str]] = {}
        """Settings that the process of a node could not be given, one line each, by node."""
        if inherited is not None:
            self.notes |= inherited.snapshot.get("notes", {})
        self.paces: dict[str, Any] = {}
        """What is known of the usual rates of outputs, for the next daemon."""
        if inherited is not None:
            self.paces = inherited.snapshot.get("paces", {})
        self.link = ShareLink(
            dataflow_id, options.share, lambda config: self.broker.set_link(config)
        )
        """The link process, if the dataflow has nodes on other machines."""
        self._context = context
        self._socket = socket
        self._options = options
        self._services = services
        self._inherited = inherited
        self._store_throttle = StoreThrottle(self._store_snapshot)
        self._admission = Admission(services.may_use)
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
        self.supervisor = self._make_supervisor()
        """Starts, watches and stops the nodes; reports the state of each."""
        self.commands = self.supervisor.commands
        """Changes nodes and edges while the dataflow runs."""
        for node_id, values in options.params.items():
            self.broker.params.replace(node_id, values)
        # Set only now: the initial parameters are not a change.
        self.broker.on_change = self._store_throttle.changed
        self.broker.when_stored = self.commands.when_stored = self._store_throttle.when_stored
        self.link.use(self.link.of(context.dataflow))
        self._router = Router(dataflow_id, self.broker.emitter)
        self._router.update(context.dataflow)
        self._hot_reload = self._make_hot_reload() if options.hot_reload else None
        self._processes = self._make_processes(spawner)

    async def run(self) -> Ended:
        """Start every node, and return when the dataflow has ended.

        Raises:
            LaunchError: no process can be started at all.
            OSError: shared memory or the socket cannot be created.
        """
        started_at = time.monotonic()
        kept = self._inherited
        found = 0 if kept is None else len(kept.processes)
        _log.debug("dataflow %s at %s, %d processes found", self.dataflow_id, self._socket, found)
        async with AsyncExitStack() as stack:
            stack.callback(self.log.close)
            self.log.begin()
            stack.callback(self._end_leftovers)
            edges: tuple[EdgeCounters, ...] = ()
            if self.supervisor.finished:
                # An earlier daemon saw the end, and was killed before it could store the results.
                self._socket.unlink(missing_ok=True)
            else:
                edges = await self._run_nodes(stack)
            failure = self.supervisor.start_failure
            results, seconds = self.supervisor.results, time.monotonic() - started_at
            ended = Ended(results, edges, seconds, failure)
            _log.debug("dataflow %s ends, ok: %s", self.dataflow_id, ended.ok)
            self.log.end("finished" if ended.ok else "failed")
        return ended

    async def _run_nodes(self, stack: AsyncExitStack) -> tuple[EdgeCounters, ...]:
        """Run all nodes to their ends; return the counters of their edges.

        `stack` ends what nodes need. Raises LaunchError and OSError, as `run`.
        """
        kept = self._inherited
        stack.push_async_callback(self.broker.close)
        stack.push_async_callback(self._close_subscriptions)
        stack.callback(self._store_throttle.close)
        found = None if kept is None else Kept(kept.descriptors, kept.snapshot["broker"])
        # Before the broker takes the descriptors that tell it.
        attached = set() if found is None else found.attached()
        await self.broker.open(found)
        if kept is not None:
            # The snapshot may be older than the parameters, which are stored one by one.
            for node_id, values in self._options.params.items():
                self.broker.params.align(node_id, values)
        if self._options.stop_after is not None:
            stopping = asyncio.create_task(
                self._stop_in_time(self._options.stop_after), name="stop"
            )
            stack.push_async_callback(_cancel, stopping)
        adopted = None if kept is None else self._adopt(kept, attached)
        if self._hot_reload is not None:
            self._hot_reload.begin(None if kept is None else kept.snapshot.get("files"))
            watching = asyncio.create_task(self._hot_reload.watch(), name="hot reload")
            stack.push_async_callback(_cancel, watching)
        await self.supervisor.run(self._start, adopted)
        return tuple(self.broker.stats.counters())

    @functools.cached_property
    def subscriptions(self) -> Subscriptions:
        """The temporary subscribers of the control API."""
        from dorad.daemon.subscription.subscriptions import Subscriptions  # `dora run` has none

        return Subscriptions(self.broker, self._services.helpers)

    async def _close_subscriptions(self) -> None:
        if "subscriptions" in self.__dict__:
            await self.subscriptions.close()

    @property
    def dataflow(self) -> Dataflow:
        """The dataflow as it is now."""
        return self.supervisor.dataflow

    @property
    def opened(self) -> bool:
        """Whether the start barrier has opened."""
        return self.supervisor.opened

    @property
    def channels(self) -> list[LinkChannel]:
        """The channels between this machine and others, with their counters."""
        lost: dict[str, int] = {}
        queues: dict[str, tuple[int, int]] = {}
        for edge in self.broker.stats.counters() if self.opened else ():
            if edge.source_node == LINK:
                lost[edge.output] = max(edge.lost, lost.get(edge.output, 0))
            elif edge.node == LINK:
                # Several rings may feed one input.
                waiting, dropped = queues.get(edge.input, (0, 0))
                queues[edge.input] = (
                    clamped(waiting + edge.queued),
                    clamped(dropped + edge.dropped),
                )
        return self.link.links.channels(self.dataflow_id, lost, queues)

    @property
    def spawned(self) -> bool:
        """Whether the process of every node has been started, or failed to start."""
        return all(
            view.pid is not None or view.last_exit is not None or view.status == "stopped"
            for node, view in self.supervisor.statuses().items()
            if not self.dataflow.node(node).is_dynamic
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state that the next daemon needs to adopt the run, as JSON-able values."""
        return {
            "format": FORMAT,
            "supervisor": self.supervisor.snapshot(),
            "broker": self.broker.snapshot(),
            "notes": self.notes,
            "paces": self.paces,
            **({} if self._hot_reload is None else {"files": self._hot_reload.snapshot()}),
        }

    def stop(self, grace: float | None = None) -> None:
        """Stop every node: SIGTERM after `grace` seconds (10), SIGKILL after half as many more."""
        self.supervisor.stop(grace)

    def kill(self, reason: str) -> None:
        """Kill every node now; `reason` follows a node's name in the report."""
        self.supervisor.kill(reason)

    def abandon(self) -> None:
        """Remove the socket's file, for a process that exits without waiting for the nodes."""
        self._socket.unlink(missing_ok=True)

    async def _stop_in_time(self, seconds: float) -> None:
        """Stop `seconds` after the start, also if the start barrier has not opened by then."""
        await asyncio.sleep(seconds)
        _log.debug("dataflow %s: %g s are over, opened: %s", self.dataflow_id, seconds, self.opened)
        self.supervisor.stop()

    def old_secrets(self, node: NodeSpec, started_at: float | None) -> list[str]:
        """Return the secrets of a node that have changed since its process was started."""
        if not node.secrets or started_at is None:
            return []
        files: dict[str, Path | None] = {}
        for name in node.secrets:
            try:
                files[name] = self._context.secret(name)
            except LaunchError:
                files[name] = None  # it was removed, or can no longer be used
        return newer_secrets(files, started_at)

    def check_program(self, node: NodeSpec, after: Dataflow) -> None:
        """Check that a new node can be started. Raises DataflowError."""
        alone = replace(after, nodes=(node,))
        problems = broken_commands(replace(self._context, dataflow=alone))
        if problems:
            raise DataflowError(problems, "the node cannot be started")

    def report_event(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Report an event to the recorders of the dataflow."""
        self.broker.notifications.send_event(what, node, text, data)

    def keep_paces(self, paces: dict[str, Any]) -> None:
        """Keep what is known of the usual rates of outputs for the next daemon."""
        if paces != self.paces:
            self.paces = paces
            self._store_throttle.changed()

    def _publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        self.report_event(what, node, text, data)
        self._services.on_event(what, node, text, data)

    def _topology_changed(self, after: Dataflow) -> None:
        self.log.update(after)
        self._router.update(after)

    async def _start(self, node: NodeSpec, node_config: str, restart_count: int) -> NodeProcess:
        self.notes.pop(node.id, None)
        return await self._processes.start(node, node_config, restart_count)

    def _adopt(self, kept: Inheritance, attached: set[int]) -> dict[str, NodeProcess]:
        return self._processes.adopt(
            kept.processes,
            kept.descriptors,
            attached,
            self.dataflow,
            self.broker.node_config,
        )

    def _end_leftovers(self) -> None:
        kept = self._inherited
        if kept is None:
            self._processes.close((), {})
        else:
            self._processes.close(kept.processes, kept.descriptors)

    def _note(self, node_id: str, text: str) -> None:
        """Warn of a setting that a node's process lacks, and keep the text for `dora node info`."""
        self.log.report("warn", node_id, text)
        _log.debug("note of node %s: %r", node_id, text)
        notes = self.notes.setdefault(node_id, [])
        if text not in notes:
            notes.append(text)
            del notes[:-MAX_NOTES]
        self._store_throttle.changed()

    def _store_snapshot(self) -> None:
        # The host may forget a process only after a snapshot without it has been stored.
        self._services.on_change()
        self._processes.forget_exited({view.pid for view in self.supervisor.statuses().values()})

    def _make_supervisor(self) -> Supervisor:
        dataflow, finish = self._context.dataflow, self._options.exit_when_nodes_finish
        return Supervisor(
            dataflow,
            self._make_broker,
            self.log.report,
            exit_when_nodes_finish=bool(
                dataflow.exit_when_nodes_finish if finish is None else finish
            ),
            hold=self._options.hold,
            links=self.link.links,
            finish_grace=default_grace(self._context.environ),
            restored=None if self._inherited is None else self._inherited.snapshot["supervisor"],
            check_program=self.check_program,
            on_topology=self._topology_changed,
            on_change=self._store_throttle.changed,
            on_event=self._publish,
        )

    def _make_broker(self, listener: Supervisor) -> Broker:
        self.broker = Broker(
            self._context.dataflow,
            self.dataflow_id,
            self._socket,
            listener,
            store=self._services.store,
            admits=self._services.admits,
            admission=self._admission,
        )
        self.broker.on_note = self._note
        return self.broker

    def _make_hot_reload(self) -> HotReload:
        from dorad.daemon.supervisor.hotreload import HotReload  # few runs watch their files

        return HotReload(
            lambda: python_files(self._context, self.dataflow),
            self.commands.restart,
            self.broker.notifications.reload,
            self.log.report,
            self._store_throttle.changed,
        )

    def _make_processes(self, spawner: Spawner) -> NodeProcesses:
        services = self._services
        launcher = Launcher(
            self.dataflow_id,
            spawner,
            self._context,
            self.log,
            store=services.store,
            marker=services.marker,
            note=self._note,
            downloads=services.downloads,
        )
        return NodeProcesses(
            launcher, self._admission, services.store, services.forget, self.log.report
        )


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})
