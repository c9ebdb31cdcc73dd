"""All dataflows of a daemon: started, found, changed, taken over, and their ends written down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError
from dorad.control.peer import may_command
from dorad.daemon.autostart import due, first_since_boot, forgettable
from dorad.daemon.broker.restore import RestoreError
from dorad.daemon.broker.sockets import SOCKETS, daemon_socket
from dorad.daemon.config import NodeSettings
from dorad.daemon.database import StateError
from dorad.daemon.eventbus import EventBus
from dorad.daemon.nodeusers import NodeUsers
from dorad.daemon.record import Record, stored_failure, stored_result
from dorad.daemon.rules.naming import check_name, find
from dorad.daemon.rules.report import failure_report
from dorad.daemon.run import FORMAT, DataflowRun, Inheritance
from dorad.daemon.state import Options, Row
from dorad.dataflow import params
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.support import unsupported
from dorad.dataflow.topology import changes
from dorad.dataflow.types.strict import change_problems
from dorad.launch.command import LaunchContext
from dorad.launch.fetch import MAX_TOTAL, Downloads
from dorad.launch.model import LaunchError
from dorad.logs.journal.writer import Journal
from dorad.logs.paths import log_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dorad.control.messages import Start
    from dorad.control.peer import Peer
    from dorad.daemon.paths import DaemonPaths
    from dorad.daemon.state import State
    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.launch.host import Host, KeptProcess

KEPT_ENDED = 200
"""Dataflows that have ended and are still listed; the oldest are forgotten. As in dora 1.x."""

ANEW_GRACE_S = 5.0
"""Seconds until SIGKILL for nodes of another version."""

_log = logging.getLogger("dorad")


class Registry:
    """Belongs to one event loop."""

    def __init__(
        self,
        state: State,
        host: Host,
        paths: DaemonPaths,
        notice: Callable[[str], None],
        *,
        journal: bool = False,
    ) -> None:
        """Know nothing yet; `adopt` reads the state.

        `notice` is for the operator. With `journal`, lines of nodes go to systemd's journal.
        """
        self.event_bus = EventBus()
        self.adopted = 0
        """Node processes that were found running."""
        self.node_users = NodeUsers(NodeSettings())
        """Who nodes run as."""
        self.group: int | None = None
        """Whose members may command the daemon."""
        self._state = state
        self._host = host
        self._places = paths
        self._notice = notice
        self._journal = journal
        self._downloads: Downloads | None = None
        if paths.downloads is not None:
            helpers = host.helpers if host.units else None
            self._downloads = Downloads(paths.downloads, helpers=helpers, max_total=MAX_TOTAL)
            self._downloads.clear_partial()
        self._records: list[Record] = []
        self._broken_state = False
        self._closing = False
        self._lost: set[str] = set()
        """Dataflows that ran and could not be taken over."""

    @property
    def records(self) -> list[Record]:
        """All dataflows, the oldest first."""
        return list(self._records)

    def _running(self) -> Iterator[Record]:
        return (record for record in self._records if record.running)

    def summary(self) -> str:
        """Return in one line what there is."""
        running = list(self._running())
        nodes = sum(
            view.pid is not None
            for record in running
            if record.run is not None
            for view in record.run.statuses().values()
        )
        flows = "1 dataflow" if len(running) == 1 else f"{len(running)} dataflows"
        plain = "" if self._host.units else ", not units of systemd"
        return f"{flows}, {nodes} node process{'' if nodes == 1 else 'es'}{plain}"

    def fault(self) -> str | None:
        """Return what is wrong with the daemon itself, if anything is."""
        for record in self._running():
            if record.task is not None and record.task.done():
                return f"nobody looks after dataflow {record.name or record.uuid} any more"
        return None

    @property
    def state_path(self) -> Path:
        """The file that everything is written down in."""
        return self._state.path

    def find(self, wanted: str | None, *, ended_too: bool = False) -> Record:
        """Return the dataflow that is meant. Raises ControlError."""
        return self._records[find(self._records, wanted, ended_too=ended_too)]

    def find_run(self, wanted: str | None) -> tuple[Record, DataflowRun, Dataflow]:
        """Return a running dataflow. Raises ControlError."""
        record = self.find(wanted)
        if record.run is None or record.dataflow is None:
            raise ControlError("not-found", f"dataflow {record.uuid} has ended")
        return record, record.run, record.dataflow

    def dataflow_of(self, record: Record) -> Dataflow:
        """Return the dataflow as it is now, or was at its end. Raises ControlError."""
        if record.dataflow is None:
            record.dataflow = _checked(record.row.descriptor, record.row.path)
        return record.dataflow

    def changes(self, record: Record) -> list[str]:
        """Return how a dataflow differs from the file it was started from, a line each."""
        row = record.row
        if row.original == row.descriptor:
            return []
        return changes(_checked(row.original, row.path), self.dataflow_of(record))

    # -- starting ----------------------------------------------------------------------------

    def start(self, wanted: Start) -> Record:
        """Start a dataflow; its nodes are started from now on.

        Raises:
            ControlError: it is not in order, or its name is taken.
        """
        if wanted.name is not None:
            check_name(wanted.name, self._records)
        if not Path(wanted.path).is_absolute():
            raise ControlError("bad-request", f"path {wanted.path!r} is not absolute")
        options = Options(
            env=wanted.env,
            uv=wanted.uv,
            allow_shell=wanted.allow_shell,
            exit_when_nodes_finish=wanted.exit_when_nodes_finish,
            hot_reload=wanted.hot_reload,
        )
        return self._begin(
            wanted.descriptor, wanted.descriptor, wanted.path, wanted.name, options, {}
        )

    def start_again(self, old: Record) -> Record:
        """Start an ended dataflow as it was at last, under a new UUID. Raises ControlError."""
        row = old.row
        if row.name is not None:
            check_name(row.name, self._records)
        return self._begin(
            row.original, row.descriptor, row.path, row.name, row.options, old.params
        )

    def _begin(
        self,
        original: dict[str, Any],
        descriptor: dict[str, Any],
        path: str,
        name: str | None,
        options: Options,
        given: dict[str, dict[str, Any]],
    ) -> Record:
        if self._closing:
            raise ControlError("busy", "the daemon is ending")
        dataflow = _checked(descriptor, path)
        problem = self.node_users.problem()
        if problem and any(node.user is None and not node.is_dynamic for node in dataflow.nodes):
            raise ControlError("refused", f"nodes cannot be started: {problem}")
        if unfit := change_problems(dataflow):
            raise _refused(DataflowError(unfit))
        number = str(uuid.uuid4())
        row = Row(
            uuid=number,
            name=name,
            path=path,
            original=original,
            descriptor=descriptor,
            options=options,
            log_dir=str(log_folder(self._places.logs or dataflow.base_dir, number)),
            status="starting",
            started_at=time.time(),
            enabled=any(each.row.enabled for each in self._namesakes(name)),
        )
        record = Record(row, dataflow, params={node: dict(keys) for node, keys in given.items()})
        record.run = self._make_run(record, dataflow, None)
        _log.debug("dataflow %s (%s) of %s is started", number, name, path)
        self._store(record)
        if row.enabled:
            self._disable_namesakes(record)
        for node, keys in record.params.items():
            for key, value in keys.items():
                self.store_param(record, node, key, value)
        self._records.append(record)
        self._go(record)
        return record

    def enable(self, record: Record, *, enabled: bool) -> None:
        """Have a dataflow started at boot, or no longer. Raises ControlError."""
        _log.debug("dataflow %s, enabled: %s", record.uuid, enabled)
        if record.name is None:
            raise ControlError(
                "bad-request",
                "a dataflow that is to be started at boot needs a name",
                "start it with --name",
            )
        record.row.enabled = enabled
        self._store(record)
        self._disable_namesakes(record)

    def _namesakes(self, name: str | None) -> list[Record]:
        return [record for record in self._records if name is not None and record.name == name]

    def _disable_namesakes(self, record: Record) -> None:
        """Leave it to the latest of a name to be started at boot."""
        for other in self._namesakes(record.name):
            if other is not record and other.row.enabled:
                other.row.enabled = False
                self._store(other)

    def autostart(self) -> None:
        """Start what is to run and does not; `adopt` comes first."""
        try:
            boot = first_since_boot(self._places.runtime)
        except OSError as error:
            self._notice(f"it cannot be told whether the machine was restarted: {error}")
            boot = False
        _log.debug("first start since boot: %s; lost: %s", boot, self._lost)
        for record in due(self._records, self._lost, boot=boot):
            self._start_enabled(record)

    def _start_enabled(self, record: Record) -> None:
        try:
            again = self.start_again(record)
        except ControlError as error:
            self._notice(f"dataflow {record.name} is not started: {error.message}")
        else:
            _log.info("started dataflow %s (%s)", again.name, again.uuid)

    def _make_run(
        self, record: Record, dataflow: Dataflow, inherited: Inheritance | None
    ) -> DataflowRun:
        row = record.row
        context = LaunchContext(
            dataflow,
            os.environ,
            row.options.env,
            uv=row.options.uv,
            allow_shell=row.options.allow_shell,
            dataflow_name=row.name or "",
            user_for=lambda wanted: self.node_users.user_for(wanted),
            sandboxed=lambda node: self.node_users.settings.sandboxed(row.name, node),
        )
        try:
            return DataflowRun(
                row.uuid,
                context,
                self._host,
                daemon_socket(self._places.runtime, row.uuid),
                name=row.name,
                log_dir=Path(row.log_dir),
                journal=Journal() if self._journal else None,
                store=self._host,
                admits=self._admits if self._host.units else None,
                may_use=self._may_use,
                helpers=self._host.helpers,
                downloads=self._downloads,
                marker=self._mark(row.uuid),
                exit_when_nodes_finish=row.options.exit_when_nodes_finish,
                hot_reload=row.options.hot_reload,
                params={node.id: self.params_of(record, node) for node in dataflow.nodes},
                inherited=inherited,
                on_change=lambda: self._changed(record),
                on_happening=lambda what, node, text, data: self.event_bus.tell(
                    row.uuid, what, node, text, **data
                ),
                forget=self._host.forget,
            )
        except DataflowError as error:
            raise _refused(error) from error
        except (OSError, ValueError) as error:
            raise ControlError("refused", str(error)) from error

    def _go(self, record: Record) -> None:
        record.task = asyncio.create_task(self._live(record), name=f"dataflow {record.uuid}")

    async def _live(self, record: Record) -> None:
        """See a dataflow through to its end, and write that down."""
        run = record.run
        assert run is not None
        self.event_bus.tell(record.uuid, "dataflow-starting")
        try:
            ended = await run.run()
            await self._end_strays(record)
            record.row.results = [stored_result(result) for result in ended.results]
            record.row.failures = [stored_failure(block) for block in failure_report(ended.results)]
            record.row.status = "finished" if ended.ok else "failed"
        except RestoreError as error:
            _log.warning("dataflow %s could not be taken over: %s", record.uuid, error)
            headline = f"could not be taken over: {error}"
            record.row.failures = [{"headline": headline, "lines": []}]
            record.row.status = "failed"
            self._lost.add(record.uuid)
            await self._end_strays(record)
        except (LaunchError, OSError) as error:
            record.row.failures = [{"headline": str(error), "lines": []}]
            record.row.status = "failed"
        except Exception as error:  # noqa: BLE001 - one dataflow's fault must not end the others
            _log.exception("dataflow %s", record.uuid)
            record.row.failures = [{"headline": f"an error of the daemon: {error!r}", "lines": []}]
            record.row.status = "failed"
        finally:
            _log.debug("dataflow %s has ended: %s", record.uuid, record.row.status)
            record.row.ended_at = time.time()
            record.row.snapshot = {}
            record.run = None
            self._store(record)
        self.event_bus.tell(record.uuid, "dataflow-ended", text=record.row.status)
        record.bell.ring()
        if due([record], self._lost, boot=False):
            self._start_enabled(record)
        self._forget_oldest()

    def _admits(self, peer: Peer) -> bool:
        """Whether nodes may run as this user, or it may command the daemon."""
        if may_command(peer, os.getuid(), self.group):
            return True
        return self.node_users.admits(peer.uid)

    def _may_use(self, node: NodeSpec, peer: Peer) -> bool:
        """Whether a process may attach as a dynamic node: of its user, or of a commander."""
        if may_command(peer, os.getuid(), self.group):
            return True
        return self.node_users.is_user_of(node.user, peer.uid)

    def _mark(self, uuid: str) -> str:
        """What the processes of one dataflow carry; see `orphans`."""
        return f"{self._places.marker}#{uuid}"

    async def _end_strays(self, record: Record) -> None:
        """End what nodes have left behind in sessions of their own."""
        try:
            await self._host.end_marked(self._mark(record.uuid), below_too=True)
        except LaunchError as error:
            self._notice(str(error))

    # -- changing ----------------------------------------------------------------------------

    def store_change(self, record: Record, dataflow: Dataflow) -> None:
        """Take note that a running dataflow is another one now."""
        _log.debug("dataflow %s has changed and has %d nodes", record.uuid, len(dataflow.nodes))
        record.dataflow = dataflow
        record.row.descriptor = dataflow.descriptor
        if record.run is not None:
            # Together: a snapshot is one of this description of the dataflow.
            record.row.snapshot = record.run.snapshot()
        self._store(record)

    def params_of(self, record: Record, node: NodeSpec) -> dict[str, Any]:
        """Return the parameters that a process of the node starts with.

        What was set goes over what is declared, unless that does not allow it (any more).
        """
        values = params.initial(node)
        for key, value in record.params.get(node.id, {}).items():
            with contextlib.suppress(ValueError):
                values[key] = params.check(node.declared.get(key), value)
        return values

    def store_param(self, record: Record, node: str, key: str, value: Any) -> None:
        """Take note of a parameter that was set. Raises ControlError if it cannot be stored."""
        try:
            self._state.set_param(record.uuid, node, key, value)
        except StateError as error:
            raise ControlError("internal", f"the parameter cannot be stored: {error}") from error
        record.params.setdefault(node, {})[key] = value

    def delete_param(self, record: Record, node: str, key: str) -> None:
        """Take note that a parameter was deleted. Raises ControlError if it cannot be stored."""
        try:
            self._state.delete_param(record.uuid, node, key)
        except StateError as error:
            raise ControlError("internal", f"the parameter cannot be stored: {error}") from error
        record.params.get(node, {}).pop(key, None)

    def stop(self, record: Record, *, grace: float | None = None, force: bool = False) -> None:
        """Ask a dataflow to end; `grace` in seconds, with `force` its nodes are killed now."""
        if record.run is None:
            return
        _log.debug("dataflow %s is stopped, grace %s, force %s", record.uuid, grace, force)
        record.row.status = "stopping"
        self._store(record)
        if force:
            record.run.kill("was killed because the dataflow was stopped by force")
        else:
            record.run.stop(grace)

    async def stop_all(self) -> None:
        """Stop every dataflow, and wait for the ends."""
        tasks = [record.task for record in self._records if record.running and record.task]
        for record in self._records:
            self.stop(record)
        if tasks:
            await asyncio.wait(tasks)

    async def sync(self) -> None:
        """Bring what was just written down to the disk, so that it survives a power cut."""
        try:
            await asyncio.to_thread(self._state.sync)
        except StateError as error:
            self._notice(f"the state cannot be brought to the disk: {error}")

    def clean(self) -> list[Record]:
        """Forget what has ended and is not to be started at boot; return it."""
        gone = [r for r in self._records if not (r.running or r.row.enabled)]
        _log.debug("%d ended dataflows are forgotten", len(gone))
        try:
            self._state.forget(record.uuid for record in gone)
        except StateError as error:
            raise ControlError("internal", str(error)) from error
        self._records = [record for record in self._records if record not in gone]
        return gone

    def _forget_oldest(self) -> None:
        for record in forgettable(self._records, KEPT_ENDED):
            self._records.remove(record)
            self._guarded(lambda: self._state.forget([record.uuid]))  # noqa: B023 - called at once

    def _changed(self, record: Record) -> None:
        """Store how far a run is; called after whatever another daemon would have to know."""
        run = record.run
        if run is None or not record.running:
            return
        if record.row.status == "starting" and run.opened:
            _log.debug("dataflow %s runs", record.uuid)
            record.row.status = "running"
            self.event_bus.tell(record.uuid, "dataflow-running")
            self._store(record)
        if run.dataflow is record.dataflow:
            record.row.snapshot = run.snapshot()
            self._guarded(lambda: self._state.put_snapshot(record.uuid, record.row.snapshot))
        else:
            self.store_change(record, run.dataflow)
        record.bell.ring()

    def _store(self, record: Record) -> None:
        self._guarded(lambda: self._state.put(record.row))

    def _guarded(self, write: Callable[[], None]) -> None:
        """Write to the state; if that fails the dataflows go on, and the operator is told once."""
        try:
            write()
            self._broken_state = False
        except StateError as error:
            if not self._broken_state:
                self._notice(f"the state cannot be written, so a restart would lose it: {error}")
            self._broken_state = True

    # -- taking over -------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Go on with what an earlier daemon has left; end what nobody knows any more."""
        processes: dict[str, dict[str, KeptProcess]] = {}
        for process in self._host.kept:
            number, _, _ = process.tag.partition("/")
            processes.setdefault(number, {})[process.tag] = process
        for row in self._state.rows():
            record = Record(row, params=self._state.params(row.uuid))
            self._records.append(record)
            if record.running:
                self._take_over(record, list(processes.pop(row.uuid, {}).values()))
        await self._end_strangers([p for tags in processes.values() for p in tags.values()])
        if self.adopted:
            _log.info("took over %d running nodes", self.adopted)

    def _take_over(self, record: Record, processes: list[KeptProcess]) -> None:
        row = record.row
        descriptors = self._host.take(f"{row.uuid}/")
        living = sum(process.exit is None for process in processes)
        _log.debug(
            "dataflow %s: %d processes, %d of them live, %d descriptors",
            *(row.uuid, len(processes), living, len(descriptors)),
        )
        try:
            if not row.snapshot:
                raise ControlError("refused", "its nodes had not been started when dorad ended")
            if not descriptors:
                raise ControlError("refused", "its nodes have ended with what kept them")
            record.dataflow = _checked(row.descriptor, row.path)
            if row.snapshot.get("format") != FORMAT:
                record.run = self._make_run(record, record.dataflow, None)
                record.task = asyncio.create_task(self._start_anew(record, processes, descriptors))
                return
            inherited = Inheritance(descriptors, tuple(processes), row.snapshot, row.started_at)
            record.run = self._make_run(record, record.dataflow, inherited)
        except ControlError as error:
            self._not_taken_over(record, processes, descriptors, error.message)
            return
        except Exception as error:  # noqa: BLE001 - what is wrong with one must not end the others
            _log.exception("dataflow %s", row.uuid)
            why = f"what is known of it cannot be used: {error!r}"
            self._not_taken_over(record, processes, descriptors, why)
            return
        self.adopted += living
        self._go(record)

    def _not_taken_over(
        self,
        record: Record,
        processes: list[KeptProcess],
        descriptors: Mapping[str, tuple[int, ...]],
        why: str,
    ) -> None:
        """End what is left of a dataflow that cannot be gone on with."""
        self._let_go(descriptors)
        self._end(processes)
        row = record.row
        self._lost.add(row.uuid)
        row.status = "failed"
        row.ended_at = time.time()
        row.failures = [{"headline": f"could not be taken over: {why}", "lines": []}]
        row.snapshot = {}
        self._store(record)
        _log.warning("dataflow %s could not be taken over: %s", row.uuid, why)

    async def _start_anew(
        self,
        record: Record,
        processes: list[KeptProcess],
        descriptors: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Start a dataflow again whose nodes speak as an earlier version did."""
        self._notice(
            f"dataflow {record.name or record.uuid}: this version of dora has another format of"
            " shared memory, so its nodes are started again"
        )
        record.row.status = "starting"
        living = [asyncio.ensure_future(found.process.wait()) for found in processes]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for found in processes:
                found.process.signal(number)
            if living:
                await asyncio.wait(living, timeout=ANEW_GRACE_S)
        # Only now: a node that prints must not fail because nobody is there to read it.
        self._let_go(descriptors)
        for found in processes:
            self._host.forget(found.pid)
        await self._live(record)

    def _let_go(self, kept: Mapping[str, tuple[int, ...]]) -> None:
        """Keep these descriptors no longer."""
        for name, descriptors in kept.items():
            self._host.drop(name)
            for descriptor in descriptors:
                os.close(descriptor)

    def _end(self, processes: Iterable[KeptProcess]) -> None:
        for found in processes:
            _log.debug("process %d (%s) is killed", found.pid, found.tag)
            found.process.signal(signal.SIGKILL)
            self._host.forget(found.pid)

    async def _end_strangers(self, processes: list[KeptProcess]) -> None:
        """End processes, and close descriptors, of dataflows that the state does not know."""
        strangers = sum(found.exit is None for found in processes)
        self._end(processes)
        self._let_go(self._host.take(""))
        try:
            strangers += await self._host.end_marked(self._places.marker, below_too=False)
        except LaunchError as error:
            self._notice(str(error))
        ours = {daemon_socket(self._places.runtime, record.uuid) for record in self._running()}
        for path in self._places.runtime.glob(SOCKETS):
            if path not in ours:
                path.unlink(missing_ok=True)
        if strangers:
            some = "1 process" if strangers == 1 else f"{strangers} processes"
            self._notice(f"ended {some} of dataflows that the state does not know")

    # -- the end -----------------------------------------------------------------------------

    def kill_all(self, why: str) -> None:
        """Kill every node now."""
        for record in self._records:
            if record.run is not None:
                record.run.kill(why)

    def store_all(self) -> None:
        """Write down how far every run is."""
        for record in self._records:
            self._changed(record)

    async def close(self) -> None:
        """Stop every dataflow, wait for the ends, and start none any more."""
        self._closing = True
        await self.stop_all()


def _checked(descriptor: dict[str, Any], path: str) -> Dataflow:
    try:
        dataflow = from_descriptor(descriptor, path=Path(path))
        problems = unsupported(dataflow)
    except DataflowError as error:
        raise _refused(error) from error
    if problems:
        raise _refused(DataflowError(problems))
    return dataflow


def _refused(error: DataflowError) -> ControlError:
    lines = str(error).splitlines()
    return ControlError("refused", "the dataflow is not in order", None, lines)
