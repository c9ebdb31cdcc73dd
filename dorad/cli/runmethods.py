"""The methods that a `dora run` answers about its dataflow, besides those for traces."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.measuring.history import History
from dorad.daemon.measuring.measure import EVERY_S
from dorad.daemon.measuring.runmeter import RunMeter

if TYPE_CHECKING:
    from dorad.daemon.run import DataflowRun


class RunMethods:
    """Answers from measurements of its own, which begin when the first client connects."""

    def __init__(self, run: DataflowRun, name: str) -> None:
        """`name` is what the dataflow is called."""
        self._run = run
        self._name = name
        self._started_at = time.time()
        self._meter = RunMeter(name)
        self._history = History()
        self._top = self._meter.top(run)

    def check(self, wanted: str | None) -> None:
        """Check that a client means this dataflow. Raises ControlError."""
        if wanted not in (None, self._name, self._run.dataflow_id):
            raise ControlError("not-found", f"this `dora run` runs {self._name}, not {wanted}")

    async def measure(self) -> None:
        """Measure once a second until cancelled."""
        while True:
            self._top = top = self._meter.top(self._run)
            now = time.monotonic()
            if self._history.due(now):
                nodes = {(each.dataflow, each.node): each.metrics for each in top.nodes}
                self._history.add(now, nodes, top.edges)
            await asyncio.sleep(EVERY_S)

    @handles(m.DATAFLOW_LIST)
    async def list_all(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        """List the dataflow."""
        return m.DataflowList(dataflows=[self._info()])

    @handles(m.DATAFLOW_INFO)
    async def info(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        """Describe the dataflow as it is now."""
        self.check(params.dataflow)
        dataflow = self._run.dataflow
        return m.DataflowDetail(
            info=self._info(),
            descriptor=dict(dataflow.descriptor),
            path=os.fspath(dataflow.path.absolute()),
            log_dir=os.fspath(self._run.log.folder),
        )

    @handles(m.TOP)
    async def top(self, _call: Call, _params: m.Nothing) -> m.Top:
        """Return the latest figures."""
        return self._top

    @handles(m.TOP_HISTORY)
    async def history(self, _call: Call, params: m.TopHistory) -> m.History:
        """Return the figures of the last ten minutes, or since the first client connected."""
        self.check(params.dataflow)
        return self._history.read(self._run.dataflow_id, params.node, time.time())

    def _info(self) -> m.DataflowInfo:
        used = [node.metrics for node in self._top.nodes]
        return m.DataflowInfo(
            uuid=self._run.dataflow_id,
            name=self._name,
            status="running" if self._run.opened else "starting",
            nodes=sum(node.pid is not None for node in self._top.nodes),
            cpu=sum(each.cpu for each in used),
            memory=sum(each.memory for each in used),
            started_at=self._started_at,
        )
