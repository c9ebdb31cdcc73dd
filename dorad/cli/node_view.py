"""Rows, lines and JSON objects that describe nodes, for `dora node list` and `dora node info`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dorad.cli.curves import edge_lines, node_lines
from dorad.commandline.tables import megabytes, milliseconds, percent, plain, rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.control.messages import History, NodeDetail, NodeInfo, NodeMetrics

COLUMNS = ("NODE", "STATUS", "PID", "CPU", "MEMORY", "RESTARTS", "MACHINE", "DATAFLOW")


def columns_for(nodes: Sequence[NodeInfo], *, of_all: bool) -> tuple[str, ...]:
    """Return the columns of a list of nodes, which may be those `of_all` dataflows."""
    left_out = set() if of_all else {"DATAFLOW"}
    if not any(info.machine for info in nodes):  # a daemon's own
        left_out.add("MACHINE")
    return tuple(column for column in COLUMNS if column not in left_out)


def as_row(info: NodeInfo, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the row of a node under some of `COLUMNS`."""
    cells = (
        info.node,
        status_text(info),
        "-" if info.pid is None else str(info.pid),
        percent(info.metrics.cpu),
        megabytes(info.metrics.memory),
        str(info.restarts),
        info.machine or "-",
        info.dataflow_name or info.dataflow,
    )
    return tuple(cell for name, cell in zip(COLUMNS, cells, strict=True) if name in columns)


def as_json(info: NodeInfo, columns: Sequence[str]) -> dict[str, str]:
    """Return the row as an object of strings, as dora prints it."""
    named = [column.lower() for column in columns]
    return dict(zip(named, as_row(info, columns), strict=True))


def status_text(info: NodeInfo) -> str:
    """Return the status as tables show it."""
    if info.status == "pending" and info.reason:
        return f"Pending: {info.reason}"
    return "Dynamic" if info.dynamic and info.pid is None else info.status.capitalize()


def detail_json(detail: NodeDetail, history: History | None) -> dict[str, Any]:
    """Return all details of a node, dora's keys first."""
    info = detail.info
    return {
        "node_id": info.node,
        "dataflow": info.dataflow_name or info.dataflow,
        "path": detail.path,
        "outputs": [
            {
                "id": output,
                "subscribers": [f"{receiver.node}/{receiver.input}" for receiver in receivers],
            }
            for output, receivers in detail.outputs.items()
        ],
        "inputs": [{"id": name, "source": source} for name, source in detail.inputs.items()],
        "restart_policy": _policy(detail),
        "max_restarts": detail.max_restarts,
        "metrics": {
            "status": status_text(info),
            "pid": info.pid,
            "cpu": percent(info.metrics.cpu),
            "memory": megabytes(info.metrics.memory),
            "restart_count": info.restarts,
            "pending_messages": info.pending,
            "broken_inputs": info.broken_inputs,
            "disk_read": info.metrics.disk_read,
            "disk_write": info.metrics.disk_write,
            "net_tx": info.metrics.net_tx if info.metrics.net_known else None,
            "net_rx": info.metrics.net_rx if info.metrics.net_known else None,
        },
        "dataflow_id": info.dataflow,
        "machine": info.machine,
        "args": detail.args,
        "started_at": info.started_at,
        "last_exit": info.last_exit,
        "restart_delay": detail.restart_delay,
        "max_restart_delay": detail.max_restart_delay,
        "restart_window": detail.restart_window,
        "health_check_timeout": detail.health_check_timeout,
        "startup_timeout": detail.startup_timeout,
        "realtime": detail.realtime,
        "stamps_refused": info.stamps_refused,
        "protocol": info.protocol,
        "deadline_misses": info.deadline_misses,
        "tick_delay": info.tick_delay,
        "tick_jitter": info.tick_jitter,
        "tick_worst": info.tick_worst,
        "notes": detail.notes,
        "history": None if history is None else plain(history),
    }


def detail_lines(detail: NodeDetail, history: History | None) -> Iterator[str]:
    """Yield the lines that describe a node, with its last ten minutes if they are known."""
    info = detail.info
    yield f"Node: {info.node}"
    yield f"Dataflow: {info.dataflow_name or info.dataflow}"
    if info.machine is not None:
        yield f"Machine: {info.machine}"
    yield f"Path: {detail.path or '-'}" + (f" {detail.args}" if detail.args else "")
    yield from ("", "Restart policy:", f"  policy:          {_policy(detail)}")
    yield f"  max restarts:    {detail.max_restarts or 'unlimited'}"
    for head, seconds in (
        ("delay:", detail.restart_delay),
        ("max delay:", detail.max_restart_delay),
        ("window:", detail.restart_window),
        ("health check:", detail.health_check_timeout),
        ("startup timeout:", detail.startup_timeout),
    ):
        if seconds is not None:
            yield f"  {head:16} {seconds:g} s"
    if detail.realtime is not None:
        yield from ("", f"Real time: {detail.realtime}")
    if detail.inputs:
        yield from ("", "Inputs:")
        for name, source in detail.inputs.items():
            broken = "  (broken: its source is silent)" if name in info.broken_inputs else ""
            yield f"  {name} <- {source}{broken}"
    if detail.outputs:
        yield from ("", "Outputs:")
        for output, receivers in detail.outputs.items():
            names = ", ".join(f"{receiver.node}/{receiver.input}" for receiver in receivers)
            yield f"  {output} -> {names}" if names else f"  {output} (no subscribers)"
    yield from ("", "Now:", *_now(info))
    yield from _past(info.node, history)
    if detail.notes:
        yield from ("", "Notes:", *(f"  {note}" for note in detail.notes))


def _past(node: str, history: History | None) -> Iterator[str]:
    """Yield the curves of a node and of the edges to it."""
    lines = [line for each in history.nodes for line in node_lines(each)] if history else []
    for edge in history.edges if history else ():
        if edge.target.partition("/")[0] == node and (of_edge := list(edge_lines(edge))):
            lines += [f"{edge.source} -> {edge.target}", *(f"  {line}" for line in of_edge)]
    if lines:
        yield from ("", "Last ten minutes:", *(f"  {line}" for line in lines))


def _now(info: NodeInfo) -> Iterator[str]:
    yield f"  status:          {status_text(info)}"
    if info.pid is not None:
        since = f", for {time.time() - info.started_at:.0f} s" if info.started_at else ""
        yield f"  pid:             {info.pid}{since}"
    if info.protocol is not None:
        yield f"  node API:        version {info.protocol}"
    yield f"  CPU:             {percent(info.metrics.cpu)}"
    yield f"  memory:          {megabytes(info.metrics.memory)}"
    disk = (rate(info.metrics.disk_read), rate(info.metrics.disk_write))
    yield f"  disk:            {disk[0]} read, {disk[1]} written"
    yield f"  network:         {network_text(info.metrics)}"
    yield f"  restarts:        {info.restarts}"
    yield f"  pending:         {info.pending} messages"
    if info.stamps_refused:
        yield f"  clock:           {info.stamps_refused} timestamps too far ahead, ignored"
    if info.deadline_misses is not None:
        delay, jitter, worst = map(
            milliseconds, (info.tick_delay, info.tick_jitter, info.tick_worst)
        )
        yield f"  timers:          {info.deadline_misses} deadlines missed"
        yield f"  ticks late:      {delay} ms on average, jitter {jitter} ms, at most {worst} ms"
    if info.last_exit:
        error = f": {info.last_error}" if info.last_error else ""
        yield f"  last exit:       {info.last_exit}{error}"


def network_text(metrics: NodeMetrics) -> str:
    """Return the network rates of a node as text, `-` if they cannot be measured."""
    if not metrics.net_known:
        return "-"
    return f"{rate(metrics.net_tx)} sent, {rate(metrics.net_rx)} received"


def _policy(detail: NodeDetail) -> str:
    """Return the restart policy in dora's spelling, such as `OnFailure`."""
    return "".join(word.capitalize() for word in detail.restart_policy.split("-"))
