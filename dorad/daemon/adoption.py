"""Adopt the dataflows of the previous daemon, and end processes that belong to none."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.daemon.broker.listener import SOCKETS, daemon_socket
from dorad.daemon.record import Record, checked_dataflow
from dorad.daemon.runmodel import Inheritance, can_adopt
from dorad.launch.model import LaunchError
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dorad.daemon.paths import DaemonPaths
    from dorad.daemon.recordstore import RecordStore
    from dorad.daemon.runner import Runner
    from dorad.launch.host import Host, KeptProcess

    Descriptors = Mapping[str, tuple[int, ...]]

FORMAT_GRACE_S = 5.0
"""Time until SIGKILL for nodes with another format."""

_log = logging.getLogger(__name__)


class Adoption:
    """Adopts the processes that the host kept. Runs once, before anything is started."""

    def __init__(
        self,
        host: Host,
        paths: DaemonPaths,
        store: RecordStore,
        runner: Runner,
        warn: Callable[[str], None],
    ) -> None:
        self.adopted = 0
        """Node processes that were found running."""
        self._host = host
        self._paths = paths
        self._store = store
        self._runner = runner
        self._warn = warn

    async def adopt(self, records: Sequence[Record]) -> None:
        """Adopt the running dataflows among `records`; end all other processes of the host."""
        processes: dict[str, list[KeptProcess]] = {}
        for process in self._host.kept:
            uuid, _, _ = process.tag.partition("/")
            processes.setdefault(uuid, []).append(process)
        for record in records:
            if record.running:
                self._adopt_record(record, processes.pop(record.uuid, []))
        unknown = [process for kept in processes.values() for process in kept]
        await self._end_unknown(unknown, records)
        if self.adopted:
            _log.info("adopted %d running nodes", self.adopted)

    def _adopt_record(self, record: Record, processes: list[KeptProcess]) -> None:
        """Continue the run of one dataflow, start it again, or record its end or failure."""
        row = record.row
        descriptors = self._host.take(f"{row.uuid}/")
        running = sum(process.exit is None for process in processes)
        _log.debug(
            "dataflow %s: %d processes, %d of them run, %d descriptors",
            *(row.uuid, len(processes), running, len(descriptors)),
        )
        try:
            if not row.snapshot:
                raise ControlError("refused", "dorad ended before its nodes were started")
            same_format = can_adopt(row.snapshot.get("format"))
            finished = same_format and row.snapshot["supervisor"].get("finished", False)
            if finished:
                self._release(descriptors)
                self._kill(processes)
                descriptors, processes = {}, []
            elif not descriptors:
                raise ControlError("refused", "its nodes ended together with their host")
            record.dataflow = checked_dataflow(row.descriptor, row.path, row.options.share)
            if not same_format:
                self._runner.prepare(record, record.dataflow)
                record.task = asyncio.create_task(
                    self._start_again(record, processes, descriptors),
                    name=f"dataflow {record.uuid}",
                )
                return
            inherited = Inheritance(descriptors, tuple(processes), row.snapshot, row.started_at)
            self._runner.prepare(record, record.dataflow, inherited)
        except ProblemError as error:
            self._abandon(record, processes, descriptors, error.message)
            return
        except Exception as error:  # noqa: BLE001 - one damaged dataflow must not end the others
            _log.exception("dataflow %s", row.uuid)
            why = f"its stored state cannot be used: {error!r}"
            self._abandon(record, processes, descriptors, why)
            return
        self.adopted += running
        self._runner.start(record)

    def _abandon(
        self,
        record: Record,
        processes: list[KeptProcess],
        descriptors: Descriptors,
        why: str,
    ) -> None:
        """End the remaining processes of a dataflow that cannot be adopted."""
        self._release(descriptors)
        self._kill(processes)
        record.lose(why)
        record.end()
        self._store.put(record)
        _log.warning("dataflow %s could not be adopted: %s", record.uuid, why)

    async def _start_again(
        self, record: Record, processes: list[KeptProcess], descriptors: Descriptors
    ) -> None:
        """End nodes whose format this version does not use, then start the dataflow again."""
        self._warn(
            f"dataflow {record.title}: this version of dora uses another format of shared memory,"
            " so its nodes are started again"
        )
        record.row.status = "starting"
        exits = [asyncio.ensure_future(kept.process.wait()) for kept in processes]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for kept in processes:
                kept.process.signal(number)
            if exits:
                await asyncio.wait(exits, timeout=FORMAT_GRACE_S)
        # Only now: a node that still prints must not fail because its pipe is closed.
        self._release(descriptors)
        for kept in processes:
            self._host.forget(kept.pid)
        await self._runner.run_to_end(record)

    def _release(self, descriptors: Descriptors) -> None:
        """Close descriptors, and remove them from the host."""
        for name, numbers in descriptors.items():
            self._host.drop(name)
            for number in numbers:
                os.close(number)

    def _kill(self, processes: Iterable[KeptProcess]) -> None:
        for kept in processes:
            _log.debug("process %d (%s) is killed", kept.pid, kept.tag)
            kept.process.signal(signal.SIGKILL)
            self._host.forget(kept.pid)

    async def _end_unknown(self, processes: list[KeptProcess], records: Sequence[Record]) -> None:
        """End processes, and remove descriptors and sockets, of dataflows not in the state."""
        count = sum(kept.exit is None for kept in processes)
        self._kill(processes)
        self._release(self._host.take(""))
        try:
            count += await self._host.end_marked(self._paths.marker, below_too=False)
        except LaunchError as error:
            self._warn(str(error))
        runtime = self._paths.runtime
        ours = {daemon_socket(runtime, record.uuid) for record in records if record.running}
        for path in runtime.glob(SOCKETS):
            if path not in ours:
                path.unlink(missing_ok=True)
        if count:
            some = "1 process" if count == 1 else f"{count} processes"
            self._warn(f"ended {some} of unknown dataflows")
