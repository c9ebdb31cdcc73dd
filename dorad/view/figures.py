"""What the live graph shows of a measurement: figures of boxes and wires, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.dataflow.model import LINK
from dorad.trace.waterfall import MAX_ROWS, rows, troubles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dorad.control.messages import EdgeStats, History, NodeInfo, Top, Trace

MAX_PROBLEMS = 500
MAX_TEXT = 2000
"""Characters of a text from a node."""

SICK = ("failed", "degraded", "restarting", "pending")
"""States of nodes that are problems."""


def figures(top: Top, uuid: str) -> dict[str, Any]:
    """Return the figures of one dataflow. Times are in seconds, rates are for each second."""
    nodes = [each for each in top.nodes if each.dataflow == uuid and each.node != LINK]
    edges = [
        each
        for each in top.edges
        if each.dataflow == uuid and not each.target.startswith(f"{LINK}/")
    ]
    problems = [*_problems(nodes, edges)]
    return {
        "type": "figures",
        "at": top.at,
        "window": top.window,
        "nodes": [_node(each) for each in nodes],
        "edges": [_edge(each) for each in edges],
        "problems": problems[:MAX_PROBLEMS],
        "problems_left_out": max(0, len(problems) - MAX_PROBLEMS),
        "missing": top.missing,
    }


def _node(info: NodeInfo) -> dict[str, Any]:
    used = info.metrics
    return {
        "node": info.node,
        "status": info.status,
        "sick": info.status in SICK,
        "pid": info.pid,
        "machine": info.machine,
        "cpu": used.cpu,
        "memory": used.memory,
        "restarts": info.restarts,
        "queued": info.pending,
        "started_at": info.started_at,
        "missed": info.deadline_misses,
        "tick_delay": info.tick_delay,
        "why": why(info),
    }


def why(info: NodeInfo) -> str:
    """Return why a node is not well, or how its last process ended; empty if nothing is known."""
    broken = f"timed out: {', '.join(info.broken_inputs)}" if info.broken_inputs else ""
    parts = (info.reason, broken, info.last_exit or "", info.last_error)
    return "\n".join(filter(None, parts))[:MAX_TEXT]


def _edge(edge: EdgeStats) -> dict[str, Any]:
    return {
        # Of what comes from another machine, the link is the sender here.
        "source": edge.source.removeprefix(f"{LINK}/"),
        "target": edge.target,
        "machine": edge.machine,
        "rate": edge.rate,
        "drop_rate": edge.drop_rate,
        "bandwidth": edge.bandwidth,
        "sent": edge.sent,
        "received": edge.received,
        "dropped": edge.dropped,
        "lost": edge.lost,
        "unreadable": edge.unreadable,
        "queued": edge.queued,
        "queue_size": edge.queue_size,
        "p50": edge.latency_p50,
        "p99": edge.latency_p99,
        "worst": edge.latency_worst,
        "broken": edge.broken,
    }


def _problems(nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]) -> Iterator[dict[str, str]]:
    """Yield what is wrong, the worst first; `node` and `input` say where."""
    for status in SICK:
        for info in nodes:
            if info.status == status:
                reason = why(info).partition("\n")[0]
                yield {
                    "node": info.node,
                    "input": "",
                    "text": f"{info.node} {status}" + (f": {reason}" if reason else ""),
                }
    for edge in edges:
        node, _, name = edge.target.partition("/")
        if edge.broken:
            yield {"node": node, "input": name, "text": f"{edge.target} has timed out"}
        elif edge.drop_rate > 0:
            text = f"{edge.target} drops {edge.drop_rate:.3g} messages a second"
            yield {"node": node, "input": name, "text": text}


def curves(history: History) -> dict[str, Any]:
    """Return the curves of a node and its edges, the oldest point first."""
    return {
        "type": "history",
        "at": history.at,
        "step": history.step,
        "left_out": history.left_out,
        "missing": history.missing,
        "nodes": [
            {"node": each.node, "machine": each.machine, "cpu": each.cpu, "memory": each.memory}
            for each in history.nodes
        ],
        "edges": [
            {
                "source": each.source,
                "target": each.target,
                "machine": each.machine,
                "rate": each.rate,
                "drop_rate": each.drop_rate,
                "p50": each.latency_p50,
                "p99": each.latency_p99,
            }
            for each in history.edges
        ],
    }


def chart(trace: Trace) -> dict[str, Any]:
    """Return a trace as the rows of a waterfall. Times are seconds after its start."""
    all_rows = [*rows(trace)]
    return {
        "id": trace.id,
        "machine": trace.machine,
        "start": trace.start,
        "duration": trace.duration,
        "path": trace.path,
        "rows": [
            {
                "label": row.label.strip(),
                "kind": row.kind,
                "begin": row.begin,
                "end": row.end,
                "wait": row.wait,
                "note": row.note,
            }
            for row in all_rows[:MAX_ROWS]
        ],
        "rows_left_out": max(0, len(all_rows) - MAX_ROWS),
        "troubles": [*troubles(trace)][:MAX_ROWS],
    }
