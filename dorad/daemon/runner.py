"""Running dataflows from start to end, and keeping their records up to date."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.peer import may_command
from dorad.daemon.broker.listener import daemon_socket
from dorad.daemon.broker.restore import RestoreError
from dorad.daemon.config import LINK_USER, NodeSettings
from dorad.daemon.nodeusers import NodeUsers
from dorad.daemon.record import stored_failure, stored_result
from dorad.daemon.rules.report import Block, failure_report
from dorad.daemon.run import DataflowRun
from dorad.daemon.runmodel import RunOptions, RunServices
from dorad.daemon.userpool import node_folder
from dorad.launch.command import LaunchContext
from dorad.launch.fetch import MAX_TOTAL, Downloads
from dorad.launch.model import Identity, LaunchError
from dorad.launch.secrets import find_secret
from dorad.logs.journal.writer import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.eventbus import EventBus
    from dorad.control.peer import Peer
    from dorad.daemon.paths import DaemonPaths
    from dorad.daemon.record import Record
    from dorad.daemon.recordstore import RecordStore
    from dorad.daemon.runmodel import Inheritance
    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.launch.host import Host

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
    ) -> None:
        """Call `on_ended` after the end of a dataflow is stored, and `warn` for the operator.

        With `journal`, lines of nodes go to systemd's journal.
        """
        self.node_users = NodeUsers(NodeSettings())
        """The users that nodes run as."""
        self.group: int | None = None
        """The group whose members may command the daemon."""
        self._host = host
        self._paths = paths
        self._store = store
        self._event_bus = event_bus
        self._on_ended = on_ended
        self._warn = warn
        self._journal = journal
        self._downloads: Downloads | None = None
        if paths.downloads is not None:
            self._downloads = Downloads(paths.downloads, helpers=host.helpers, max_total=MAX_TOTAL)
            self._downloads.clear_partial()

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
            identity=lambda node: self._identity(record, node),
            link_user=lambda: self.node_users.link_user(),
            secret=lambda name: find_secret(name, self._paths.secrets),
            sandboxed=lambda node: self.node_users.settings.sandboxed(row.name, node),
        )
        try:
            record.run = DataflowRun(
                row.uuid,
                context,
                self._host,
                daemon_socket(self._paths.runtime, row.uuid),
                name=row.name,
                log_dir=Path(row.log_dir),
                journal=Journal() if self._journal else None,
                options=RunOptions(
                    exit_when_nodes_finish=row.options.exit_when_nodes_finish,
                    hot_reload=row.options.hot_reload,
                    params={node.id: record.initial_params(node) for node in dataflow.nodes},
                    share=row.options.share,
                    hold=hold,
                ),
                services=self._services(record),
                inherited=inherited,
            )
        except (OSError, ValueError) as error:
            raise ControlError("refused", str(error)) from error

    def _services(self, record: Record) -> RunServices:
        uuid = record.row.uuid
        return RunServices(
            store=self._host,
            marker=self._marker(uuid),
            admits=(lambda peer: self._admits(record, peer)) if self._host.units else None,
            may_use=lambda node, peer: self._may_use(record, node, peer),
            helpers=self._host.helpers,
            downloads=self._downloads,
            on_change=lambda: self.save(record),
            forget=self._host.forget,
            on_event=lambda what, node, text, data: self._event_bus.publish(
                uuid, what, node, text, **data
            ),
        )

    def start(self, record: Record) -> None:
        """Start a task that runs the prepared dataflow to its end."""
        record.task = asyncio.create_task(self.run_to_end(record), name=f"dataflow {record.uuid}")

    async def run_to_end(self, record: Record) -> None:
        """Run a prepared dataflow to its end, and store its results."""
        run = record.run
        assert run is not None
        self._event_bus.publish(record.uuid, "dataflow-starting")
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
        self._event_bus.publish(record.uuid, "dataflow-ended", text=record.row.status)
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
            self._event_bus.publish(record.uuid, "dataflow-running")
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

    def _identity(self, record: Record, node: NodeSpec) -> Identity:
        """Return the user of a node, its groups, and its folder. Raises LaunchError."""
        users, own, name = self.node_users, record.row.options.user, record.name
        user = users.user_for(node.user, own)
        groups = users.groups_for(node.groups, user) if self._host.units else node.groups
        folder = None
        if name is not None and self._host.units and user == (own or users.settings.user):
            folder = node_folder(self._paths.state, name, user, node)
        return Identity(user, groups, folder)

    def _admits(self, record: Record, peer: Peer) -> bool:
        """Return True if a node of the dataflow or its link process runs as the peer's user.

        And if the peer may command the daemon.
        """
        if may_command(peer, os.getuid(), self.group):
            return True
        dataflow = record.dataflow if record.run is None else record.run.dataflow
        wanted = [None] if dataflow is None else [node.user for node in dataflow.nodes]
        users = self.node_users
        return users.is_user_of([*wanted, LINK_USER], record.row.options.user, peer.uid)

    def _may_use(self, record: Record, node: NodeSpec, peer: Peer) -> bool:
        """Return True if a process of the peer's user may attach as a dynamic node."""
        if may_command(peer, os.getuid(), self.group):
            return True
        return self.node_users.is_user_of([node.user], record.row.options.user, peer.uid)

    def _marker(self, uuid: str) -> str:
        """Return the marker that the processes of one dataflow carry; see `orphans`."""
        return f"{self._paths.marker}#{uuid}"

    async def _end_strays(self, record: Record) -> None:
        """End processes that nodes have left in other sessions."""
        try:
            await self._host.end_marked(self._marker(record.uuid), below_too=True)
        except LaunchError as error:
            self._warn(str(error))
