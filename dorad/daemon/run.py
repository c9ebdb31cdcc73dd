"""One run of a dataflow on this machine: its processes, broker, supervisor and log together."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from dorad.daemon.broker.admission import Admission
from dorad.daemon.broker.broker import Broker
from dorad.daemon.broker.restore import Kept
from dorad.daemon.broker.sessions import MAX_NOTES, BrokerListener
from dorad.daemon.nodeprocesses import NodeProcesses
from dorad.daemon.rules.exits import CLEAN_EXIT, ORDERED, Result
from dorad.daemon.rules.links import Links
from dorad.daemon.rules.routing import Router, routes_of
from dorad.daemon.rules.stragglers import default_grace
from dorad.daemon.runmodel import DEFAULT_OPTIONS, FORMAT, Inheritance, RunOptions, RunServices
from dorad.daemon.sharelink import ShareLink
from dorad.daemon.storing import StoreThrottle
from dorad.daemon.supervisor.processes import Launcher, NodeProcess, broken_commands
from dorad.daemon.supervisor.supervisor import Supervisor
from dorad.daemon.tracer import Tracer
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.model import LINK, Dataflow, NodeSpec
from dorad.int64 import clamped
from dorad.launch.command import LaunchContext, program_files
from dorad.launch.model import LaunchError
from dorad.launch.secrets import newer_secrets
from dorad.logs.dataflowlog import DataflowLog
from dorad.trace.store import TraceStore

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.messages import LinkChannel
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.subscription.subscriptions import Subscriptions
    from dorad.daemon.supervisor.hotreload import HotReload
    from dorad.launch.spawner import Spawner
    from dorad.logrecord import Level
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


class Ended(Struct, frozen=True):
    """Result of a run."""

    results: tuple[Result, ...]
    """One for each node that the daemon starts, in the order of their ends."""
    edges: tuple[EdgeCounters, ...]
    seconds: float
    """From the start of the first process to the end of the last."""
    failure: str = ""
    """Why the start failed for a reason outside the nodes; empty if it did not."""

    @property
    def ok(self) -> bool:
        """Whether every node ended well."""
        return not self.failure and all(result.ok for result in self.results)


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
        journal: str | None = None,
        watch: Sink | None = None,
        options: RunOptions = DEFAULT_OPTIONS,
        services: RunServices | None = None,
        inherited: Inheritance | None = None,
    ) -> None:
        """Prepare a run; no node is started yet.

        Nodes connect to the broker at `socket`. Log files are written to `log_dir` (None: beside
        the dataflow's file), or lines to the `journal`, given by its socket. `watch` gets the
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
        inherits = {} if inherited is None else inherited.snapshot
        self.notes: dict[str, list[str]] = {**inherits.get("notes", {})}
        """Settings that the process of a node could not be given, one line each, by node."""
        self.paces: dict[str, Any] = inherits.get("paces", {})
        """What is known of the usual rates of outputs, for the next daemon."""
        self._context = context
        self._socket = socket
        self._options = options
        self._services = services = services or RunServices()
        self._inherited = inherited
        self.traces = services.traces or TraceStore()
        """Where the traces of messages are kept."""
        self._changes = StoreThrottle(self._store_snapshot)
        self._admission = Admission(services)
        links = Links()
        self.supervisor = self._make_supervisor(links, inherits.get("supervisor"))
        """Starts, watches and stops the nodes; reports the state of each."""
        self.commands = self.supervisor.commands
        """Changes nodes and edges while the dataflow runs."""
        self.broker = self.supervisor.broker
        self.tracer = Tracer(
            dataflow_id,
            self.broker.hops,
            self.broker.emitter,
            self.broker.stats,
            self.traces,
            self._has_failed,
            machine="" if options.share is None else options.share.machine,
        )
        self.link = ShareLink(dataflow_id, options.share, links, self.broker)
        """The link process, if the dataflow has nodes on other machines."""
        self.link.use(self.link.of(context.dataflow))
        self._router = Router(dataflow_id, self.broker.emitter, routes_of(context.dataflow))
        self.log = DataflowLog(
            dataflow_id,
            context.dataflow,
            folder=log_dir,
            name=name,
            started_at=None if inherited is None else inherited.started_at,
            watch=watch,
            route=self._router.route,
            journal=journal,
        )
        self._hot_reload = self._make_hot_reload() if options.hot_reload else None
        launcher = Launcher(dataflow_id, spawner, context, self.log, services, self.note)
        self._processes = NodeProcesses(launcher, self._admission, self.broker, services, self)

    async def run(self) -> Ended:
        """Start every node, and return when the dataflow has ended.

        Raises:
            LaunchError: no process can be started at all.
            OSError: shared memory or the socket cannot be created.
        """
        started_at = time.monotonic()
        kept = self._inherited
        count = 0 if kept is None else len(kept.processes)
        _log.debug("dataflow %s at %s, %d processes found", self.dataflow_id, self._socket, count)
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
        stack.callback(self._changes.close)
        restored = None if kept is None else Kept(kept.descriptors, kept.snapshot["broker"])
        # Before the broker takes the descriptors that tell it.
        attached = set() if restored is None else restored.attached()
        await self.broker.open(restored)
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
        tracing = asyncio.create_task(self._trace(), name="traces")
        stack.push_async_callback(_cancel, tracing)
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
        self.supervisor.end_in_time()

    def old_secrets(self, node: NodeSpec, started_at: float | None) -> list[str]:
        """Return the secrets of a node that have changed since its process was started."""
        if not node.secrets or started_at is None:
            return []
        files: dict[str, Path | None] = {}
        for name in node.secrets:
            try:
                files[name] = self._context.rights.secret(name)
            except LaunchError:
                files[name] = None  # it was removed, or can no longer be used
        return newer_secrets(files, started_at)

    def check_program(self, node: NodeSpec, after: Dataflow) -> None:
        """Check that a new node can be started. Raises DataflowError."""
        alone = replace(after, nodes=(node,))
        problems = broken_commands(replace(self._context, dataflow=alone))
        if problems:
            raise DataflowError(problems, "the node cannot be started")

    def keep_paces(self, paces: dict[str, Any]) -> None:
        """Keep what is known of the usual rates of outputs for the next daemon."""
        if paces != self.paces:
            self.paces = paces
            self._changes.changed()

    def publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Publish an event to the recorders of the dataflow and to the daemon."""
        self.broker.notifications.send_event(what, node, text, data)
        self._services.publish(what, node, text, data)

    def report(self, level: Level, node: str | None, text: str) -> None:
        """Report one sentence to the user, about a node if any."""
        self.log.report(level, node, text)

    def topology_changed(self, after: Dataflow) -> None:
        """Route and log the lines of the nodes of a changed dataflow."""
        self.log.update(after)
        self._router.update(after)

    async def _trace(self) -> None:
        try:
            await self.tracer.run()
        except Exception as error:  # noqa: BLE001 - the dataflow goes on without traces
            _log.exception("traces of dataflow %s", self.dataflow_id)
            self.log.report("warn", None, f"no more traces of messages are kept: {error!r}")

    def _has_failed(self, node_id: str) -> bool:
        view = self.supervisor.status(node_id)
        return view is not None and view.last_exit not in (None, CLEAN_EXIT, *ORDERED)

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

    def note(self, node_id: str, text: str) -> None:
        """Warn of a setting that a node's process lacks, and keep the text for `dora node info`."""
        self.log.report("warn", node_id, text)
        _log.debug("note of node %s: %r", node_id, text)
        notes = self.notes.setdefault(node_id, [])
        if text not in notes:
            notes.append(text)
            del notes[:-MAX_NOTES]
        self._changes.changed()

    def _store_snapshot(self) -> None:
        # The host may forget a process only after a snapshot without it has been stored.
        self._services.store_snapshot()
        self._processes.forget_exited({view.pid for view in self.supervisor.statuses().values()})

    def _make_supervisor(self, links: Links, restored: dict[str, Any] | None) -> Supervisor:
        dataflow, finish = self._context.dataflow, self._options.exit_when_nodes_finish
        return Supervisor(
            dataflow,
            self._make_broker,
            self,
            self._changes,
            exit_when_nodes_finish=bool(
                dataflow.exit_when_nodes_finish if finish is None else finish
            ),
            hold=self._options.hold,
            links=links,
            finish_grace=default_grace(self._context.environ),
            restored=restored,
        )

    def _make_broker(self, listener: BrokerListener) -> Broker:
        return Broker(
            self._context.dataflow,
            self.dataflow_id,
            self._socket,
            listener,
            store=self._services.store,
            changes=self._changes,
            params=self._options.params,
            admission=self._admission,
            stepped=self._options.stepped,
        )

    def _make_hot_reload(self) -> HotReload:
        from dorad.daemon.supervisor.hotreload import HotReload  # few runs watch their files

        return HotReload(
            lambda: program_files(self._context, self.dataflow),
            self.commands,
            self.broker.notifications,
            self,
            self._changes,
        )


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})
