"""Reduce a measurement to what an operator looks at: a pure function for both servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.filters import Filter, Value, parse
from dorad.control.messages import EdgeStats, NodeInfo, Top, TopPart, TopWatch
from dorad.natural import natural

MIN_INTERVAL_S = 0.2
"""Minimum time between two events of a stream that a client chooses the interval of."""

NODE_KEYS = ("node", "status", "dataflow", "robot", "pid", "cpu", "memory", "restarts", "queue")
EDGE_KEYS = (
    *("edge", "source", "target", "rate", "drops", "dropped", "lost", "queue", "latency", "broken"),
)


def node_cells(info: NodeInfo) -> dict[str, Value]:
    """Return the cells of a node by which rows are filtered and sorted."""
    return {
        "node": info.node,
        "status": info.status,
        "dataflow": info.dataflow_name or info.dataflow,
        "robot": info.machine,
        "pid": info.pid,
        "cpu": info.metrics.cpu,
        "memory": info.metrics.memory,
        "restarts": info.restarts,
        "queue": info.pending,
    }


def edge_cells(edge: EdgeStats) -> dict[str, Value]:
    """Return the cells of an edge by which rows are filtered and sorted.

    `node` is both of its ends, so that one filter chooses nodes with their edges.
    """
    source, target = edge.source.partition("/")[0], edge.target.partition("/")[0]
    return {
        "edge": f"{edge.source} -> {edge.target}",
        "source": edge.source,
        "target": edge.target,
        "node": (source, target),
        "dataflow": edge.title,
        "robot": edge.machine,
        "rate": edge.rate,
        "drops": edge.drop_rate,
        "dropped": edge.dropped,
        "lost": edge.losses,
        "queue": edge.queued,
        "latency": edge.latency,
        "broken": edge.broken,
    }


def interval(params: Any) -> float:
    """Return the seconds between two events that a client asks for, within limits."""
    return max(MIN_INTERVAL_S, min(float(params.interval), 3600.0))


def reduction(params: TopWatch) -> Callable[[Top], TopPart]:
    """Return the function that reduces each measurement. Raises ControlError."""
    try:
        wanted = parse(params.filter, dict.fromkeys((*NODE_KEYS, *EDGE_KEYS)), expressions=False)
    except ValueError as error:
        raise ControlError("bad-request", f"`filter`: {error}") from None
    if params.limit < 0:
        raise ControlError("bad-request", "`limit` must not be negative")

    def reduce(top: Top) -> TopPart:
        nodes = [info for info in top.nodes if _of(params, info.dataflow, info.machine)]
        edges = [edge for edge in top.edges if _of(params, edge.dataflow, edge.machine)]
        nodes = [info for info in nodes if _passes(wanted, node_cells(info), EDGE_KEYS)]
        edges = [edge for edge in edges if _passes(wanted, edge_cells(edge), NODE_KEYS)]
        nodes, edges = sort_nodes(nodes, params.order), sort_edges(edges, params.order)
        limit = params.limit or None
        part = msgspec.structs.replace(
            top,
            nodes=nodes[:limit],
            edges=edges[:limit],
            interfaces=[each for each in top.interfaces if params.machine in (None, each.machine)],
        )
        return TopPart(top=part, nodes=len(nodes), edges=len(edges))

    return reduce


def _of(params: TopWatch, dataflow: str, machine: str | None) -> bool:
    return params.dataflow in (None, dataflow) and params.machine in (None, machine)


def _passes(wanted: Filter, cells: dict[str, Value], foreign: tuple[str, ...]) -> bool:
    """Return True if a row meets a filter; a filter on columns of the other table lets it pass."""
    if wanted.keys and not wanted.keys & cells.keys() and wanted.keys & set(foreign):
        return True
    return wanted.matches(cells)


_SICK = ("failed", "restarting", "degraded", "pending", "starting")
"""States of nodes that need a look, the worst first."""


def _sickness(info: NodeInfo) -> tuple[int, bool, bool]:
    place = _SICK.index(info.status) if info.status in _SICK else len(_SICK)
    return place, not info.broken_inputs, not info.restarts


def sort_nodes(nodes: list[NodeInfo], order: str) -> list[NodeInfo]:
    """Return the nodes sorted by name, the worst first, or by a figure with the largest first."""
    by_name = sorted(
        nodes,
        key=lambda info: (
            info.dataflow_name or info.dataflow,
            natural(info.node),
            natural(info.machine or ""),
        ),
    )
    if order == "worst":
        return sorted(by_name, key=_sickness)
    if order == "cpu":
        return sorted(by_name, key=lambda info: -info.metrics.cpu)
    if order == "memory":
        return sorted(by_name, key=lambda info: -info.metrics.memory)
    return by_name


def sort_edges(edges: list[EdgeStats], order: str) -> list[EdgeStats]:
    """Return the edges sorted by name, the worst first, or by a figure with the largest first."""
    by_name = sorted(
        edges,
        key=lambda edge: (
            edge.title,
            natural(edge.source),
            natural(edge.target),
            natural(edge.machine or ""),
        ),
    )
    if order == "worst":
        return sorted(by_name, key=lambda edge: (not edge.broken, -edge.drop_rate, -edge.losses))
    if order == "rate":
        return sorted(by_name, key=lambda edge: -edge.rate)
    if order == "drops":
        return sorted(by_name, key=lambda edge: (-edge.drop_rate, -edge.dropped - edge.losses))
    if order == "latency":
        return sorted(by_name, key=lambda edge: 1.0 if edge.latency is None else -edge.latency)
    return by_name
