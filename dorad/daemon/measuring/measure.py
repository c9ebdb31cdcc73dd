"""Looking at everything that runs once a second: what processes use, what passes over edges."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.daemon.measuring.ifrates import InterfaceMeter
from dorad.daemon.measuring.lateness import TickHistory
from dorad.daemon.measuring.metrics import NodeMeter
from dorad.daemon.measuring.rates import EdgeHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.messages import DataflowInfo
    from dorad.daemon.broker.stats import Vitals
    from dorad.daemon.measuring.network import NetworkWatch
    from dorad.daemon.record import Record
    from dorad.daemon.registry import Registry
    from dorad.daemon.run import DataflowRun
    from dorad.dataflow.model import NodeSpec

EVERY_S = 1.0

_OWN = ("", "")
"""The key of the daemon itself among the nodes that are measured."""

_IDLE = m.NodeMetrics()

_log = logging.getLogger(__name__)


class Measure:
    """The last look, and the history that rates follow from. Belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        network: NetworkWatch,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`notice` is for the operator: told once when measuring begins to fail."""
        self._registry = registry
        self._notice = notice
        self._network = network
        self._interface_meter = InterfaceMeter()
        self._interfaces: list[m.InterfaceRates] = []
        self._meter: NodeMeter[tuple[str, str]] = NodeMeter()
        self._metrics: dict[tuple[str, str], m.NodeMetrics] = {}
        self._edges: dict[str, EdgeHistory] = {}
        self._ticks: dict[str, TickHistory] = {}

    async def run(self) -> None:
        """Look once a second, until cancelled; a look that fails is followed by the next one."""
        failed = False
        while True:
            try:
                await self._look()
                failed = False
            except Exception as error:  # noqa: BLE001 - whatever is wrong now may be right again
                if not failed:
                    self._notice(f"nodes cannot be measured: {error!r}; trying again")
                failed = True
                _log.debug("a look at what runs failed", exc_info=True)
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        running = {
            record.uuid: record.run
            for record in self._registry.records
            if record.run is not None and record.run.opened
        }
        pids = {
            (uuid, node): view.pid
            for uuid, run in running.items()
            for node, view in run.statuses().items()
            if view.pid is not None
        }
        now = time.monotonic()
        self._edges = {uuid: self._edges.get(uuid) or EdgeHistory() for uuid in running}
        self._ticks = {uuid: self._ticks.get(uuid) or TickHistory() for uuid in running}
        for uuid, run in running.items():
            self._edges[uuid].add(now, run.broker.stats.counters())
            self._ticks[uuid].add(now, run.broker.stats.lateness())
        self._metrics, self._interfaces = await asyncio.to_thread(
            lambda: (
                self._meter.sample({**pids, _OWN: os.getpid()}),
                self._interface_meter.sample(),
            )
        )

    # -- the daemon --------------------------------------------------------------------------

    def own(self) -> m.NodeMetrics:
        """Return what the daemon itself uses."""
        return self._metrics.get(_OWN, _IDLE)

    def network(self) -> m.Network | None:
        """Return the network as it is now; None while it is not known."""
        return self._network.now

    # -- dataflows ---------------------------------------------------------------------------

    def node_count(self, record: Record) -> int:
        """Return how many processes of nodes run."""
        if record.run is None:
            return 0
        return sum(view.pid is not None for view in record.run.statuses().values())

    def dataflow(self, record: Record) -> DataflowInfo:
        """Return a dataflow with what its nodes use together."""
        mine = [
            used
            for (uuid, _), used in self._metrics.items()
            if uuid == record.uuid and record.running
        ]
        return record.info(
            nodes=self.node_count(record),
            cpu=sum(used.cpu for used in mine),
            memory=sum(used.memory for used in mine),
        )

    # -- nodes and edges ---------------------------------------------------------------------

    def nodes(self, record: Record) -> list[m.NodeInfo]:
        """Return all nodes of a running dataflow."""
        if record.run is None:
            return []
        return [self.node(record, node) for node in record.run.dataflow.nodes]

    def node(self, record: Record, node: NodeSpec) -> m.NodeInfo:
        """Return one node of a running dataflow. Raises ControlError if it was just removed."""
        assert record.run is not None
        view = record.run.status(node.id)
        if view is None:
            raise ControlError("not-found", f"node {node.id} has just been removed")
        history = self._ticks.get(record.uuid)
        ticks = None if history is None else history.of(node.id)
        vitals = _vitals(record.run, node.id)
        return m.NodeInfo(
            dataflow=record.uuid,
            dataflow_name=record.name,
            node=node.id,
            status=view.status,
            pid=view.pid,
            restarts=view.restarts,
            metrics=self._metrics.get((record.uuid, node.id), _IDLE),
            broken_inputs=list(view.broken_inputs),
            pending=0 if vitals is None else vitals.queued,
            stamps_refused=0 if vitals is None else vitals.stamps_refused,
            dynamic=node.is_dynamic,
            started_at=view.started_at,
            last_exit=view.last_exit,
            deadline_misses=None if ticks is None else ticks.missed,
            tick_delay=None if ticks is None else ticks.delay,
            tick_jitter=None if ticks is None else ticks.jitter,
            tick_worst=None if ticks is None else ticks.worst,
        )

    def top(self) -> m.Top:
        """Return everything that is known."""
        nodes, edges, window = [], [], 0.0
        for record in self._registry.records:
            if record.run is None:
                continue
            of_record = self.nodes(record)
            nodes += of_record
            history = self._edges.get(record.uuid)
            if history is not None:
                broken = [
                    f"{node.node}/{name}" for node in of_record for name in node.broken_inputs
                ]
                edges += history.stats(record.uuid, broken)
                window = max(window, history.window)
        return m.Top(
            at=time.time(),
            window=window,
            nodes=nodes,
            edges=edges,
            interfaces=self._interfaces,
        )


def _vitals(run: DataflowRun, node_id: str) -> Vitals | None:
    """Return the signs of life of a node; None while the dataflow has no mailboxes."""
    try:
        return run.broker.stats.vitals(node_id)
    except KeyError:
        _log.debug("node %s has no mailbox: its dataflow begins or ends", node_id)
        return None
