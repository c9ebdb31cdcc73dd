"""The methods `daemon.…`, `dataflow.…`, `logs.read` and `watch`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.api.nodes import refuse_share
from dorad.daemon.logreads import read_logs
from dorad.daemon.rules.ladder import GRACE_S
from dorad.dataflow.support import MAX_NODES, TOO_MANY_HINT, too_many

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.daemon.measuring.measure import Measure
    from dorad.daemon.record import Record
    from dorad.daemon.registry import Registry
    from dorad.daemon.service import Service

END_SLACK_S = 5.0
"""Seconds that a dataflow may need to end after the last step of its stop ladder."""


_log = logging.getLogger(__name__)


class DataflowMethods:
    """Answers the methods `daemon.…`, `dataflow.…`, `logs.read` and `watch`."""

    def __init__(self, service: Service, registry: Registry, measure: Measure) -> None:
        self._service = service
        self._registry = registry
        self._measure = measure

    @handles(m.DAEMON_STATUS)
    async def status(self, _call: Call, _params: m.Nothing) -> m.DaemonStatus:
        """Return the status of the daemon."""
        running = self._registry.running
        own = self._measure.own()
        troubles = [r.run.log.trouble.text for r in running if r.run is not None]
        troubles.append(self._service.descriptors.trouble)
        return m.DaemonStatus(
            version=__version__,
            protocol=m.PROTOCOL,
            pid=os.getpid(),
            started_at=self._service.started_at,
            dataflows=len(running),
            nodes=sum(self._measure.node_count(record) for record in running),
            state=str(self._registry.store.path),
            adopted=self._registry.adopted,
            notices=[*self._service.notices, *filter(None, troubles)],
            problem=self._registry.runner.node_users.problem(),
            memory=own.memory,
            cpu=own.cpu,
            network=self._measure.network(),
        )

    @handles(m.DAEMON_SHUTDOWN)
    async def shutdown(self, _call: Call, params: m.Shutdown) -> m.Nothing:
        """End the daemon, unless dataflows run; with `force` stop them first."""
        running = self._registry.running
        if running and not params.force:
            names = ", ".join(record.name or record.uuid for record in running)
            some = "1 dataflow runs" if len(running) == 1 else f"{len(running)} dataflows run"
            raise ControlError("busy", f"{some}: {names}", "stop them first, or use --force")
        _log.debug("shutdown is requested, %d dataflows run", len(running))
        await self._registry.stop_all()
        self._service.end()
        return m.Nothing()

    @handles(m.DATAFLOW_START)
    async def start(self, _call: Call, params: m.Start) -> m.Started:
        """Start a dataflow."""
        nodes = params.descriptor.get("nodes")
        if isinstance(nodes, list) and len(nodes) > MAX_NODES:
            raise ControlError("refused", too_many(len(nodes)), TOO_MANY_HINT)
        record = self._registry.start(params)
        await self._registry.store.sync()
        return m.Started(uuid=record.uuid, name=record.name)

    @handles(m.DATAFLOW_WAIT)
    async def wait(self, _call: Call, params: m.Wait) -> m.DataflowState:
        """Wait until a dataflow has reached a state."""
        record = self._registry.find(params.dataflow, ended_too=True)
        if not await record.bell.until(lambda: _reached(record, params.until), params.timeout):
            raise ControlError(
                "deadline",
                f"dataflow {record.name or record.uuid} is {record.status} after "
                f"{params.timeout:g} s, not {params.until}",
            )
        return record.state()

    @handles(m.DATAFLOW_STOP)
    async def stop(self, _call: Call, params: m.Stop) -> m.DataflowState:
        """Stop a dataflow and wait for its end."""
        record = self._registry.find(params.dataflow)
        await self._stop(record, params)
        return record.state()

    async def _stop(self, record: Record, params: m.Stop) -> None:
        self._registry.runner.stop(record, grace=params.grace, force=params.force)
        grace = GRACE_S if params.grace is None else params.grace
        if not await record.bell.until(lambda: not record.running, grace * 1.5 + END_SLACK_S):
            hint = None if params.force else "`dora stop --force` kills its nodes"
            text = f"dataflow {record.name or record.uuid} has not ended in time"
            raise ControlError("deadline", text, hint)

    @handles(m.DATAFLOW_RESTART)
    async def restart(self, _call: Call, params: m.Stop) -> m.Restarted:
        """Stop a dataflow and start it again with its changed nodes and edges."""
        record = self._registry.find(params.dataflow)
        refuse_share(record)
        if record.restarting:
            raise ControlError("busy", f"dataflow {record.name or record.uuid} is being restarted")
        record.restarting = True
        try:
            await self._stop(record, params)
            restarted = self._registry.start_again(record)
        finally:
            record.restarting = False
        await self._registry.store.sync()
        return m.Restarted(
            old=record.uuid,
            new=restarted.uuid,
            name=restarted.name,
            changes=self._registry.changes(record),
        )

    @handles(m.DATAFLOW_LIST)
    async def list_all(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        """List all dataflows, the oldest first."""
        return self._listed(self._registry.records)

    @handles(m.DATAFLOW_INFO)
    async def info(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        """Describe one dataflow."""
        record = self._registry.find(params.dataflow, ended_too=True)
        row = record.row
        return m.DataflowDetail(
            info=self._measure.dataflow(record),
            descriptor=row.descriptor,
            path=row.path,
            log_dir=row.log_dir,
            changes=self._registry.changes(record),
            params=record.params,
        )

    @handles(m.DATAFLOW_CLEAN)
    async def clean(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        """Forget all ended dataflows, and return them."""
        return self._listed(self._registry.clean())

    @handles(m.DATAFLOW_ENABLE)
    async def enable(self, _call: Call, params: m.Enable) -> m.DataflowInfo:
        """Set whether a dataflow is started at boot."""
        record = self._registry.find(params.dataflow, ended_too=True)
        refuse_share(record)
        self._registry.enable(record, enabled=params.enabled)
        await self._registry.store.sync()
        return self._measure.dataflow(record)

    @handles(m.LOGS_READ)
    async def read_logs(self, _call: Call, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        """Yield log lines of a running or ended dataflow; follow new ones if requested."""
        record = self._registry.find(params.dataflow, ended_too=True)
        folder = Path(record.row.log_dir)
        log = None if record.run is None else record.run.log
        async for lines in read_logs(params, record.uuid, folder, log):
            yield lines

    @handles(m.WATCH)
    async def watch(self, _call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        """Yield events of one dataflow, or of all."""
        dataflow_id = None
        if params.dataflow is not None:
            dataflow_id = self._registry.find(params.dataflow, ended_too=True).uuid
        async for event in self._registry.event_bus.subscribe(dataflow_id):
            yield event

    def _listed(self, records: list[Record]) -> m.DataflowList:
        return m.DataflowList(dataflows=[self._measure.dataflow(record) for record in records])


def _reached(record: Record, until: str) -> bool:
    if not record.running:
        return True
    match until:
        case "spawned":
            return record.run is not None and record.run.spawned
        case "ready":
            return record.status != "starting" or (
                record.run is not None and record.run.supervisor.ready
            )
        case "running":
            return record.status in ("running", "stopping")
    return False
