"""Running dataflows from start to end, and keeping their records up to date."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.peer import Peer, may_command
from dorad.daemon.broker.listener import daemon_socket
from dorad.daemon.broker.restore import RestoreError
from dorad.daemon.config import LINK_USER, NodeSettings
from dorad.daemon.nodeusers import NodeUsers
from dorad.daemon.paths import DaemonPaths
from dorad.daemon.record import Record, stored_failure, stored_result
from dorad.daemon.recordstore import RecordStore
from dorad.daemon.rules.report import Block, failure_report
from dorad.daemon.run import DataflowRun
from dorad.daemon.runmodel import Inheritance, RunOptions, RunServices
from dorad.daemon.userpool import node_folder
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.launch.command import LaunchContext, NodeRights
from dorad.launch.fetch import MAX_TOTAL, Downloads
from dorad.launch.host import Host
from dorad.launch.model import Identity, LaunchError
from dorad.logs.journal.writer import SOCKET
from dorad.trace.store import TraceStore

_log = logging.getLogger(__name__)


class Runner:
    """Runs the dataflows of one daemon. Belongs to one event loop."""

    def __init__(
        self,
        host: Host,
        paths: DaemonPaths,
        store: RecordStore,
        event_bus: EventBus,
        on_ended: Callable[[Record], None],
        warn: Callable[[str], None],
        *,
        journal: bool,
        group: int | None = None,
    ) -> None:
        """Call `on_ended` after the end of a dataflow is stored, and `warn` for the operator.

        With `journal`, lines of nodes go to systemd's journal.
        """
        self.node_users = NodeUsers(NodeSettings())
        """The users that nodes run as."""
        self.group = group
        """The group whose members may command the daemon."""
        self.host = host
        self.paths = paths
        self._store = store
        self.event_bus = event_bus
        self._on_ended = on_ended
        self._warn = warn
        self._journal = journal
        self.traces = TraceStore()
        self.downloads: Downloads | None = None
        if paths.downloads is not None:
            self.downloads = Downloads(paths.downloads, helpers=host.helpers, max_total=MAX_TOTAL)
            self.downloads.clear_partial()

    def prepare(
        self,
        record: Record,
        dataflow: Dataflow,
        inherited: Inheritance | None = None,
        *,
        hold: float | None = None,
    ) -> None:
        """Set `record.run` to a run that is not started yet. Raises ProblemError."""
        row = record.row
        context = LaunchContext(
            dataflow,
            os.environ,
            row.options.env,
            uv=row.options.uv,
            allow_shell=row.options.allow_shell,
            dataflow_name=row.name or "",
            rights=RecordRights(self, record),
        )
        try:
            record.run = DataflowRun(
                row.uuid,
                context,
                self.host,
                daemon_socket(self.paths.runtime, row.uuid),
                name=row.name,
                log_dir=Path(row.log_dir),
                journal=SOCKET if self._journal else None,
                options=RunOptions(
                    exit_when_nodes_finish=row.options.exit_when_nodes_finish,
                    hot_reload=row.options.hot_reload,
                    params={node.id: record.initial_params(node) for node in dataflow.nodes},
                    share=row.options.share,
                    hold=hold,
                ),
                services=RecordServices(self, record),
                inherited=inherited,
            )
        except (OSError, ValueError) as error:
            raise ControlError("refused", str(error)) from error

    def start(self, record: Record) -> None:
        """Start a task that runs the prepared dataflow to its end."""
        record.task = asyncio.create_task(self.run_to_end(record), name=f"dataflow {record.uuid}")

    async def run_to_end(self, record: Record) -> None:
        """Run a prepared dataflow to its end, and store its results."""
        run = record.run
        assert run is not None
        self.event_bus.publish(record.uuid, "dataflow-starting")
        try:
            ended = await run.run()
            await self._end_strays(record)
            record.row.results = [stored_result(result) for result in ended.results]
            blocks = failure_report(ended.results)
            if ended.failure:
                blocks = (Block(ended.failure), *blocks)
            record.row.failures = [stored_failure(block) for block in blocks]
            record.row.status = "finished" if ended.ok else "failed"
        except RestoreError as error:
            _log.warning("dataflow %s could not be adopted: %s", record.uuid, error)
            record.lose(str(error))
            await self._end_strays(record)
        except (LaunchError, OSError) as error:
            record.fail(str(error))
        except Exception as error:  # noqa: BLE001 - one dataflow's fault must not end the others
            _log.exception("dataflow %s", record.uuid)
            record.fail(f"an error of the daemon: {error!r}")
        finally:
            _log.debug("dataflow %s has ended: %s", record.uuid, record.row.status)
            record.end()
            self._store.put(record)
        self.event_bus.publish(record.uuid, "dataflow-ended", text=record.row.status)
        record.bell.ring()
        self._on_ended(record)

    def save(self, record: Record) -> None:
        """Store the progress of a run; called after each change that the next daemon needs."""
        run = record.run
        if run is None or not record.running:
            return
        opens = record.row.status == "starting" and run.opened
        if opens:
            _log.debug("dataflow %s runs", record.uuid)
            record.row.status = "running"
            self.event_bus.publish(record.uuid, "dataflow-running")
        if opens or run.dataflow is not record.dataflow:
            self._store.put_dataflow(record, run.dataflow)
        else:
            record.row.snapshot = run.snapshot()
            self._store.put_snapshot(record)
        record.bell.ring()

    def stop(self, record: Record, *, grace: float | None = None, force: bool = False) -> None:
        """Stop a dataflow within `grace` seconds; with `force`, kill its nodes now."""
        if record.run is None:
            return
        _log.debug("dataflow %s is stopped, grace %s, force %s", record.uuid, grace, force)
        record.row.status = "stopping"
        if force:
            record.run.kill("was killed because the dataflow was stopped by force")
        else:
            record.run.stop(grace)
        self._store.put_dataflow(record, record.run.dataflow)

    def marker(self, uuid: str) -> str:
        """Return the marker that the processes of one dataflow carry; see `orphans`."""
        return f"{self.paths.marker}#{uuid}"

    async def _end_strays(self, record: Record) -> None:
        """End processes that nodes have left in other sessions."""
        try:
            await self.host.end_marked(self.marker(record.uuid), below_too=True)
        except LaunchError as error:
            self._warn(str(error))


class RecordRights(NodeRights):
    """Whom the nodes of one dataflow of a daemon run as."""

    def __init__(self, runner: Runner, record: Record) -> None:
        super().__init__(runner.paths.secrets)
        self._runner = runner
        self._record = record

    def identity(self, node: NodeSpec) -> Identity:
        """Return the user of a node, its groups, and its folder. Raises LaunchError."""
        runner, row = self._runner, self._record.row
        users, own, units = runner.node_users, row.options.user, runner.host.units
        user = users.user_for(node.user, own)
        groups = users.groups_for(node.groups, user) if units else node.groups
        folder = None
        if row.name is not None and units and user == (own or users.settings.user):
            folder = node_folder(runner.paths.state, row.name, user, node)
        return Identity(user, groups, folder)

    def sandboxed(self, node_id: str) -> bool:
        """Return True if a node loses the rights that most nodes never need."""
        return self._runner.node_users.settings.sandboxed(self._record.row.name, node_id)

    def link_user(self) -> str:
        """Return the user of the link process. Raises LaunchError."""
        return self._runner.node_users.link_user()


class RecordServices(RunServices):
    """What a daemon does for the run of one record."""

    def __init__(self, runner: Runner, record: Record) -> None:
        self.store = runner.host
        self.marker = runner.marker(record.uuid)
        self.helpers = runner.host.helpers
        self.downloads = runner.downloads
        self.traces = runner.traces
        self.has_others = runner.host.units
        self._runner = runner
        self._record = record

    def admits(self, peer: Peer) -> bool:
        """Return True if a node of the dataflow or its link process runs as the peer's user.

        And if the peer may command the daemon.
        """
        record = self._record
        dataflow = record.dataflow if record.run is None else record.run.dataflow
        wanted = [None] if dataflow is None else [node.user for node in dataflow.nodes]
        return self.has_others and self._is_user(peer, [*wanted, LINK_USER])

    def may_use(self, node: NodeSpec, peer: Peer) -> bool:
        """Return True if a process of the peer's user may attach as a dynamic node."""
        return self._is_user(peer, [node.user])

    def _is_user(self, peer: Peer, wanted: list[str | None]) -> bool:
        if may_command(peer, os.getuid(), self._runner.group):
            return True
        users = self._runner.node_users
        return users.is_user_of(wanted, self._record.row.options.user, peer.uid)

    def forget(self, pid: int) -> None:
        """Let the host forget a process that has exited."""
        self._runner.host.forget(pid)

    def store_snapshot(self) -> None:
        """Store the progress of the run."""
        self._runner.save(self._record)

    def publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Publish an event of the run to the watchers of the daemon."""
        self._runner.event_bus.publish(self._record.uuid, what, node, text, **data)
