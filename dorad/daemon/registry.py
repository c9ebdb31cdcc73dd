"""The registry of a daemon's dataflows: start, find, enable, stop and forget them."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

# A daemon must not import it at the first request: an upgrade may have replaced its file.
import dorad.daemon.subscription.subscriptions  # noqa: F401
from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.messages import Start
from dorad.control.naming import check_name, check_uuid, ended, find
from dorad.daemon.adoption import Adoption
from dorad.daemon.paths import DaemonPaths
from dorad.daemon.record import Record, checked_dataflow
from dorad.daemon.recordstore import RecordStore
from dorad.daemon.run import DataflowRun, new_dataflow_id
from dorad.daemon.runner import Runner
from dorad.daemon.state import Options, Row, State
from dorad.daemon.userpool import RECORDINGS_FOLDER, UserPool, owned_by
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.model import Dataflow, NodeKind
from dorad.dataflow.params import check, check_key
from dorad.dataflow.topology import changes
from dorad.dataflow.types.strict import change_problems
from dorad.launch.host import Host
from dorad.launch.programs import folder_of
from dorad.logs.paths import log_folder
from dorad.problems import ProblemError

MAX_ENDED = 200
"""Number of ended dataflows that stay listed; the oldest are forgotten. As in dora 1.x."""

_log = logging.getLogger(__name__)


class Registry:
    """All dataflows of one daemon, running and ended. Belongs to one event loop."""

    def __init__(
        self,
        state: State,
        host: Host,
        paths: DaemonPaths,
        warn: Callable[[str], None],
        *,
        journal: bool = False,
        group: int | None = None,
    ) -> None:
        """Start empty; `adopt` reads the state.

        `warn` reports to the operator. Members of `group` may command the daemon. With
        `journal`, lines of nodes go to systemd's journal.
        """
        self.event_bus = EventBus()
        self.store = RecordStore(state, warn)
        self.runner = Runner(
            host,
            paths,
            self.store,
            self.event_bus,
            self._ended,
            warn,
            journal=journal,
            group=group,
        )
        self.adopted = 0
        """Number of node processes that `adopt` found running."""
        self._host = host
        self._paths = paths
        self._warn = warn
        self._users = UserPool(self.store, paths.state, self._is_known)
        self._records: list[Record] = []
        self._closing = False

    @property
    def records(self) -> list[Record]:
        """All dataflows, the oldest first."""
        return list(self._records)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders whose disks must not get full."""
        return self._paths.written

    @property
    def running(self) -> list[Record]:
        """The dataflows that have not ended, the oldest first."""
        return [record for record in self._records if record.running]

    def summary(self) -> str:
        """Return the number of dataflows and processes in one line."""
        running = self.running
        nodes = sum(
            view.pid is not None
            for record in running
            if record.run is not None
            for view in record.run.supervisor.statuses().values()
        )
        flows = "1 dataflow" if len(running) == 1 else f"{len(running)} dataflows"
        plain = "" if self._host.units else ", not units of systemd"
        return f"{flows}, {nodes} node process{'' if nodes == 1 else 'es'}{plain}"

    def fault(self) -> str | None:
        """Return a fault of the daemon itself, or None."""
        for record in self.running:
            if record.task is not None and record.task.done():
                return f"dataflow {record.title} has no supervisor task"
        return None

    def find(self, wanted: str | None, *, ended_too: bool = False) -> Record:
        """Return the dataflow with this name or UUID. Raises ControlError."""
        return self._records[find(self._records, wanted, ended_too=ended_too)]

    def find_run(self, wanted: str | None) -> tuple[Record, DataflowRun, Dataflow]:
        """Return a running dataflow. Raises ControlError."""
        record = self.find(wanted)
        if record.run is None or record.dataflow is None:
            raise ended(record)
        return record, record.run, record.dataflow

    def dataflow_of(self, record: Record) -> Dataflow:
        """Return the current dataflow, or the last one if it has ended. Raises DataflowError."""
        if record.dataflow is None:
            row = record.row
            record.dataflow = checked_dataflow(row.descriptor, row.path, row.options.share)
        return record.dataflow

    def changes(self, record: Record) -> list[str]:
        """Return the differences between a dataflow and the file it was started from, in lines."""
        row = record.row
        if row.original == row.descriptor:
            return []
        part = row.options.share
        return changes(checked_dataflow(row.original, row.path, part), self.dataflow_of(record))

    async def adopt(self) -> None:
        """Read the state and adopt what the previous daemon left; see `Adoption`."""
        self._records = self.store.load()
        self._users.load()
        adoption = Adoption(self._host, self._paths, self.store, self.runner, self._warn)
        await adoption.adopt(self._records)
        self.adopted = adoption.adopted

    def start(self, wanted: Start) -> Record:
        """Start a dataflow, whose nodes start in the background.

        Raises:
            ProblemError: it is invalid, or its name is in use.
        """
        if wanted.name is not None:
            check_name(wanted.name, self._records)
        if not Path(wanted.path).is_absolute():
            raise ControlError("bad-request", f"path {wanted.path!r} is not absolute")
        if wanted.hold is not None and not 0 < wanted.hold < math.inf:
            raise ControlError("bad-request", "`hold` must be a number of seconds above 0")
        old = None if wanted.uuid is None else self._ended_with(wanted.uuid)
        options = Options(
            env=wanted.env,
            uv=wanted.uv,
            allow_shell=wanted.allow_shell,
            exit_when_nodes_finish=wanted.exit_when_nodes_finish,
            hot_reload=wanted.hot_reload,
            share=wanted.share,
        )
        return self._start(
            wanted.descriptor,
            wanted.descriptor,
            wanted.path,
            wanted.name,
            options,
            checked_params(wanted.params) if old is None else old.params,
            uuid=wanted.uuid,
            hold=wanted.hold,
            user_of=wanted.user_of,
        )

    def _ended_with(self, uuid: str) -> Record | None:
        """Return the ended dataflow with this UUID, if there is one.

        Raises:
            ControlError: it is not a UUID, or that dataflow runs.
        """
        check_uuid(uuid)
        known = next((record for record in self._records if record.uuid == uuid), None)
        if known is not None and known.running:
            raise ControlError("exists", f"dataflow {uuid} runs already")
        return known

    def start_again(self, old: Record) -> Record:
        """Start an ended dataflow as it was at its end, under a new UUID. Raises ProblemError."""
        row = old.row
        if row.name is not None:
            check_name(row.name, self._records)
        return self._start(
            row.original, row.descriptor, row.path, row.name, row.options, old.params
        )

    def _start(
        self,
        original: dict[str, Any],
        descriptor: dict[str, Any],
        path: str,
        name: str | None,
        options: Options,
        params: dict[str, dict[str, Any]],
        *,
        uuid: str | None = None,
        hold: float | None = None,
        user_of: str | None = None,
    ) -> Record:
        if self._closing:
            raise ControlError("busy", "the daemon is ending")
        dataflow = checked_dataflow(descriptor, path, options.share)
        problem = self.runner.node_users.problem()
        if problem and any(node.user is None and not node.is_dynamic for node in dataflow.nodes):
            raise ControlError("refused", f"nodes cannot be started: {problem}")
        if problems := change_problems(dataflow):
            raise DataflowError(problems)
        uuid = uuid or new_dataflow_id()
        alike = [known for known in self.running if known.uuid == user_of]
        user = alike[0].row.options.user if alike else self._user_for(name or uuid, dataflow)
        options = replace(options, user=user)
        row = Row(
            uuid=uuid,
            name=name,
            path=path,
            original=original,
            descriptor=descriptor,
            options=options,
            log_dir=str(log_folder(self._log_base(dataflow, options), uuid)),
            status="starting",
            started_at=time.time(),
            enabled=any(each.row.enabled for each in self._namesakes(name)),
        )
        record = Record(row, dataflow, params={node: dict(keys) for node, keys in params.items()})
        self.runner.prepare(record, dataflow, hold=hold)
        _log.debug("dataflow %s (%s) of %s is started", uuid, name, path)
        with self.store.atomically():
            self.store.put(record)
            for node, values in record.params.items():
                for key, value in values.items():
                    self.store.set_param(record, node, key, value)
            if row.enabled:
                self._disable_namesakes(record)
        self._records = [known for known in self._records if known.uuid != uuid]
        self._records.append(record)
        self.runner.start(record)
        return record

    def _user_for(self, dataflow_name: str, dataflow: Dataflow) -> str:
        """Return the user for the nodes of a dataflow that starts; empty without units.

        It is the dataflow's own, unless the configuration sets one for all, or a folder of the
        dataflow was given to the user that they shared before.

        Raises:
            LaunchError: all users are in use.
        """
        users = self.runner.node_users
        shared = users.settings.user if users.units else ""
        nodes = [
            node
            for node in dataflow.nodes
            if node.user is None and node.kind not in (NodeKind.DYNAMIC, NodeKind.LINK)
        ]
        if not users.separate or not nodes:
            return shared
        folders = [folder_of(node, dataflow) for node in nodes]
        if dataflow.record is not None:
            own = self._paths.state / RECORDINGS_FOLDER / dataflow_name
            recordings = folders[0] / dataflow.record.folder
            folders += [] if recordings.is_relative_to(own) else [recordings]
        given = owned_by(folders, shared)
        if given is None:
            return self._users.assign(dataflow_name)
        self._warn(
            f"dataflow {dataflow_name} runs as {shared}, not as a user of its own, because"
            f" {given} belongs to {shared}: other dataflows that run as {shared} can read its"
            f" secrets and stop its nodes; `chown -R root: {given}` changes that at its next start"
        )
        return shared

    def _is_known(self, dataflow_name: str) -> bool:
        """Return True if a dataflow with this name or UUID may need its user again."""
        return any(
            record.name == dataflow_name or (record.uuid == dataflow_name and record.running)
            for record in self._records
        )

    def _log_base(self, dataflow: Dataflow, options: Options) -> Path:
        """Return the folder for logs: beside the file, which may be on another machine only."""
        if self._paths.logs is not None:
            return self._paths.logs
        there = options.share is None or dataflow.base_dir.is_dir()
        return dataflow.base_dir if there else self._paths.state

    def enable(self, record: Record, *, enabled: bool) -> None:
        """Start a dataflow at boot, or no longer. Raises ControlError."""
        _log.debug("dataflow %s, enabled: %s", record.uuid, enabled)
        if record.name is None:
            raise ControlError(
                "bad-request",
                "a dataflow needs a name to be started at boot",
                "start it with --name",
            )
        record.enable(enabled=enabled)
        with self.store.atomically():
            self.store.put(record)
            self._disable_namesakes(record)

    def _namesakes(self, name: str | None) -> list[Record]:
        return [record for record in self._records if name is not None and record.name == name]

    def _disable_namesakes(self, record: Record) -> None:
        """Disable other dataflows with the same name: only the latest starts at boot."""
        for other in self._namesakes(record.name):
            if other is not record and other.row.enabled:
                other.row.enabled = False
                self.store.put(other)

    def autostart(self) -> None:
        """Start the enabled dataflows that do not run. Call `adopt` first."""
        marker = self._paths.runtime / "booted"
        boot = not marker.exists()
        _log.debug("first start since boot: %s", boot)
        for record in due(self._records, boot=boot):
            self._start_enabled(record)
        # Only now: if this daemon is killed here, the next one starts the rest.
        try:
            marker.touch()
        except OSError as error:
            self._warn(f"cannot record that enabled dataflows were started: {error}")

    def _start_enabled(self, record: Record) -> None:
        try:
            again = self.start_again(record)
        except ProblemError as error:
            self._warn(f"dataflow {record.name} is not started: {error.message}")
        else:
            _log.info("started dataflow %s (%s)", again.name, again.uuid)

    def _ended(self, record: Record) -> None:
        """Start a lost dataflow again if it is enabled, and forget the oldest ended ones."""
        if due([record], boot=False):
            self._start_enabled(record)
        for old in forgettable(self._records, MAX_ENDED):
            _log.debug("dataflow %s, one of the oldest, is forgotten", old.uuid)
            self._records.remove(old)
            self.store.discard(old)

    def clean(self) -> list[Record]:
        """Forget the ended dataflows that are not enabled; return them. Raises StateError."""
        forgotten = [r for r in self._records if not (r.running or r.row.enabled)]
        _log.debug("%d ended dataflows are forgotten", len(forgotten))
        self.store.delete(forgotten)
        self._records = [record for record in self._records if record not in forgotten]
        return forgotten

    async def stop_all(self) -> None:
        """Stop every dataflow, because the daemon ends, and wait until all have ended."""
        tasks = [record.task for record in self.running if record.task]
        for record in self._records:
            if record.running and record.status != "stopping":
                record.row.interrupted = True
            self.runner.stop(record)
        if tasks:
            await asyncio.wait(tasks)

    def kill_all(self, why: str) -> None:
        """Kill every node now; `why` follows the node's name in reports."""
        for record in self._records:
            if record.run is not None:
                record.run.kill(why)

    def save_all(self) -> None:
        """Store the progress of every run."""
        for record in self._records:
            self.runner.save(record)

    async def close(self) -> None:
        """Stop every dataflow, wait until all have ended, and refuse to start more."""
        self._closing = True
        await self.stop_all()


def checked_params(given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return parameters by node and key. Raises ControlError if a name or a value is not valid."""
    for node, values in given.items():
        for key, value in values.items():
            try:
                check_key(key)
                check(None, value)
            except ValueError as error:
                raise ControlError("bad-request", f"{node}.{key}: {error}") from error
    return given


def due(records: Sequence[Record], *, boot: bool) -> list[Record]:
    """Return the dataflows to start: those that are enabled and do not run.

    At `boot` that is all of them, later only those that were lost: a dataflow that a user has
    stopped stays stopped until the next boot.
    """
    return [
        record
        for record in records
        if record.row.enabled and not record.running and (boot or record.lost)
    ]


def forgettable(records: Sequence[Record], maximum: int) -> list[Record]:
    """Return the oldest ended dataflows beyond `maximum`; enabled ones are kept."""
    ended = [record for record in records if not (record.running or record.row.enabled)]
    return ended[: max(0, len(ended) - maximum)]
