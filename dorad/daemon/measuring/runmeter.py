"""Measure one dataflow that has no daemon: that of a `dora run`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.daemon.measuring.measure import TickHistory, node_info
from dorad.daemon.measuring.metrics import NodeMeter
from dorad.daemon.measuring.rates import EdgeHistory

if TYPE_CHECKING:
    from dorad.daemon.run import DataflowRun, Ended


class RunMeter:
    """Its figures come from what it sampled before: call `top` about once a second."""

    def __init__(self, name: str) -> None:
        """`name` is what the dataflow is called."""
        self._name = name
        self._edges = EdgeHistory()
        self._ticks = TickHistory()
        self._meter: NodeMeter[str] = NodeMeter()

    def top(self, run: DataflowRun, ended: Ended | None = None) -> m.Top:
        """Sample a run, or the last counters of one that has ended."""
        now = time.monotonic()
        if ended is not None:
            self._edges.add(now, ended.edges)
        elif run.opened:
            self._edges.add(now, run.broker.stats.counters())
            self._ticks.add(now, run.broker.stats.lateness())
        views = run.supervisor.statuses()
        used = self._meter.sample(
            {node: view.pid for node, view in views.items() if view.pid is not None}
        )
        nodes = [
            node_info(
                run,
                node,
                views[node.id],
                name=self._name,
                metrics=used.get(node.id, m.NodeMetrics()),
                ticks=self._ticks.ticks(node.id),
            )
            for node in run.dataflow.nodes
            if node.id in views
        ]
        broken = [f"{node.node}/{name}" for node in nodes for name in node.broken_inputs]
        edges = self._edges.stats(run.dataflow_id, broken, name=self._name)
        return m.Top(at=time.time(), window=self._edges.window, nodes=nodes, edges=edges)
