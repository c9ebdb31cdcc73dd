"""`dora top`: resource use of nodes, and counters of edges."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import click

from dorad.cli.lineuse import Lines
from dorad.cli.select import connect, machine_option, on_machine, warn_missing
from dorad.commandline.durations import Duration
from dorad.commandline.groups import Group
from dorad.commandline.tables import in_ms, print_object
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.messages import EdgeStats, LinkChannel, NodeInfo, Top

EPILOG = """\b
Examples:
  dora top
  dora top --refresh-interval 1
  dora top --machine arm1              of a fleet, through its coordinator
  dora top --once | jq '.[] | {node_id, cpu: .metrics.cpu_usage}'
  dora top --once | jq '.[].inputs[] | select(.dropped > 0)'

\b
Keys: q quits; w, n, c, m, r and d sort by the worst, name, CPU, memory, rate and drops.
The figures come from counters in shared memory, without any effect on the dataflows.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--refresh-interval",
    type=Duration(minimum=1),
    default=2,
    metavar="DURATION",
    help="Time between updates; default 2.",
)
@click.option("--once", is_flag=True, help="Print one JSON array of the nodes and exit.")
@machine_option
def top(*, refresh_interval: float, once: bool, machine: str | None) -> None:
    """Watch the resource use of nodes and the message rates between them."""
    if once:
        with connect() as client:
            measured = on_machine(client.top(), machine)
        warn_missing(measured.missing)
        print_object(snapshot(measured))
        return
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise click.ClickException("a live table needs a terminal (use --once for JSON)")
    # The console draws on stderr.
    if sys.stderr.isatty() and _console(refresh_interval, machine):
        return
    from dorad.cli.top_screen import watch

    watch(refresh_interval, machine)


def _console(interval: float, machine: str | None) -> bool:
    """Show the live table of the console; return False where the console cannot be used.

    dorad is there without it, on robots, so it is looked for by name. Textual is imported only when
    it draws, and may be missing, or be too old.
    """
    import importlib

    try:
        show = cast(
            "Callable[[float, str | None], None]",
            importlib.import_module("dorafleet.console.main").top,
        )
        show(interval, machine)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("dorafleet", "textual"):
            raise
        return False
    return True


def snapshot(measured: Top) -> list[dict[str, Any]]:
    """Return the output of `--once`: dora's objects, and `inputs` with the edges of each node."""
    # Every machine of a dataflow has a link, all of the same name.
    edges: dict[tuple[str, str | None, str], list[EdgeStats]] = {}
    for edge in measured.edges:
        key = (edge.dataflow, edge.machine, edge.target.partition("/")[0])
        edges.setdefault(key, []).append(edge)
    lines = Lines(measured.links)
    return [
        _node(info, edges.get((info.dataflow, info.machine, info.node), []), measured, lines)
        for info in measured.nodes
    ]


def _node(info: NodeInfo, edges: list[EdgeStats], measured: Top, lines: Lines) -> dict[str, Any]:
    used = info.metrics
    network = {"tx_bytes_s": used.net_tx, "rx_bytes_s": used.net_rx} if used.net_known else None
    return {
        "dataflow_id": info.dataflow,
        "dataflow_name": info.dataflow_name,
        "node_id": info.node,
        "daemon_id": {"machine_id": info.machine, "uuid": None},
        "metrics": {
            "pid": info.pid,
            "cpu_usage": used.cpu,
            "memory_mb": used.memory / 1e6,
            "disk_read_mb_s": used.disk_read / 1e6,
            "disk_write_mb_s": used.disk_write / 1e6,
            "restart_count": info.restarts,
            "broken_inputs": info.broken_inputs,
            "status": info.status,
            "pending_messages": info.pending,
        },
        "timers": _timers(info),
        "network": network,
        "stamps_refused": info.stamps_refused,
        "started_at": info.started_at,
        "last_exit": info.last_exit,
        "window_s": measured.window,
        "inputs": [_edge(edge) for edge in edges],
        "channels": [
            _channel(each, lines)
            for each in measured.links
            if info.node == LINK and (each.dataflow, each.reporter) == (info.dataflow, info.machine)
        ],
    }


def _channel(channel: LinkChannel, lines: Lines) -> dict[str, Any]:
    latency = channel.latency_us
    return {
        "topic": channel.output,
        "machine": channel.machine,
        "direction": "out" if channel.outgoing else "in",
        "messages": channel.messages,
        "lost": channel.lost,
        "queued": channel.queued,
        "latency_ms": None if latency is None else latency / 1e3,
        "line": lines.as_json(channel),
    }


def _timers(info: NodeInfo) -> dict[str, Any] | None:
    if info.deadline_misses is None:
        return None
    return {
        "deadline_misses": info.deadline_misses,
        "delay_ms": in_ms(info.tick_delay),
        "jitter_ms": in_ms(info.tick_jitter),
        "worst_ms": in_ms(info.tick_worst),
    }


def _edge(edge: EdgeStats) -> dict[str, Any]:
    return {
        "id": edge.target.partition("/")[2],
        "source": edge.source,
        "queue_size": edge.queue_size,
        "queued": edge.queued,
        "sent": edge.sent,
        "received": edge.received,
        "dropped": edge.dropped,
        "unreadable": edge.unreadable,
        "lost": edge.lost,
        "bytes": edge.payload,
        "rate_hz": edge.rate,
        "drop_rate_hz": edge.drop_rate,
        "bytes_s": edge.bandwidth,
        "latency_ms": in_ms(edge.latency),
        "latency_p50_ms": in_ms(edge.latency_p50),
        "latency_p99_ms": in_ms(edge.latency_p99),
        "latency_worst_ms": in_ms(edge.latency_worst),
        "jitter_ms": in_ms(edge.jitter),
        "broken": edge.broken,
    }


inspect = Group("inspect", commands={"top": top}, help="Watch running dataflows.")
