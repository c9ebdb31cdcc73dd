"""The live table of `dora top`."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

from dorad.cli.node_view import status_text
from dorad.cli.select import connect, on_machine
from dorad.commandline.tables import milliseconds, rate, screen_lines, table_lines
from dorad.control.topparts import sort_edges, sort_nodes
from dorad.natural import natural, natural_item
from dorad.terminal import local_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from dorad.control.messages import EdgeStats, InterfaceRates, LinkChannel, NodeInfo, Top

NODES = (
    "NODE",
    "STATUS",
    "DATAFLOW",
    "PID",
    "CPU%",
    "MEMORY(MB)",
    "RESTARTS",
    "QUEUE",
    "MISSED",
    "TICK JITTER(ms)",
    "NET TX/RX",
    "DISK R/W",
)
EDGES = (
    "EDGE",
    "RATE(Hz)",
    "LATENCY(ms)",
    "P50/P99/WORST(ms)",
    "JITTER(ms)",
    "DROPPED",
    "DROPS/s",
    "QUEUE",
    "BANDWIDTH",
)
LINKS = ("LINK", "DATAFLOW", "MESSAGES", "LOST", "QUEUE", "LATENCY(ms)")
INTERFACES = ("INTERFACE", "RECEIVED", "SENT", "DROPPED/s")
ORDERS = {
    "w": "worst",
    "n": "name",
    "c": "CPU",
    "m": "memory",
    "r": "rate",
    "d": "drops",
    "l": "latency",
}
"""Keys that change the sort order, and their names."""
HELP = "q quit   sort: w worst  n name  c CPU  m memory  r rate  d drops  l latency"


def watch(interval: float, machine: str | None) -> None:
    """Show the tables, updated every `interval` seconds, until `q` or Ctrl-C.

    `machine` is the only one to show, of a fleet.

    Raises ControlError if the connection to the daemon is lost.
    """
    from rich.console import Console
    from rich.live import Live

    order = "w"
    console = Console(markup=False, highlight=False, emoji=False)
    with (
        connect() as client,
        _keys() as key,
        contextlib.suppress(KeyboardInterrupt),  # the other way to quit
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            measured = on_machine(client.top(), machine)
            end = time.monotonic() + interval
            while (left := end - time.monotonic()) > 0:
                live.update(screen(measured, order), refresh=True)
                pressed = key(left)
                if pressed == "q":
                    return
                order = pressed if pressed in ORDERS else order


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Provide a function that waits for a key and returns it, or "" after some seconds."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 16).decode(errors="replace")[:1].lower() if ready else ""

    tty.setcbreak(descriptor)
    try:
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def screen(measured: Top, order: str) -> RenderableType:
    """Return the whole screen for a snapshot, sorted by `order`, a key of `ORDERS`."""
    from rich.console import Group

    clock = local_time(measured.at, "%H:%M:%S")
    dataflows = len({info.dataflow for info in measured.nodes})
    left_out = [
        f"{name} is left out: {why}"
        for name, why in sorted(measured.missing.items(), key=natural_item)
    ]
    head = f"dora top   {clock}   dataflows: {dataflows}   nodes: {len(measured.nodes)}"
    # As the API names them.
    name = ORDERS[order].lower()
    nodes, edges = sort_nodes(measured.nodes, name), sort_edges(measured.edges, name)
    links = sort_links(measured.links, order)
    names = {info.dataflow: info.dataflow_name or info.dataflow[:8] for info in measured.nodes}
    rows = [link_row(link, names.get(link.dataflow, link.dataflow[:8])) for link in links]
    link_lines = _lines(LINKS, rows, [link.reporter for link in links])
    interfaces = measured.interfaces
    return Group(
        screen_lines([f"{head}   order: {ORDERS[order]}", HELP, *left_out, ""]),
        screen_lines([*_lines(NODES, map(node_row, nodes), _machines(nodes)), ""], head=1),
        screen_lines([*_lines(EDGES, map(edge_row, edges), _machines(edges)), ""], head=1),
        *([screen_lines([*link_lines, ""], head=1)] if links else []),
        screen_lines(
            _lines(INTERFACES, map(interface_row, interfaces), _machines(interfaces)), head=1
        ),
    )


def _machines(shown: Sequence[NodeInfo | EdgeStats | InterfaceRates]) -> list[str | None]:
    return [each.machine for each in shown]


def _lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], machines: Sequence[str | None]
) -> list[str]:
    """Return the lines of a table, which names the machine of each row if it is of a fleet."""
    if not any(machines):
        return table_lines(columns, rows)
    wider = ((*row, machine or "-") for row, machine in zip(rows, machines, strict=True))
    return table_lines((*columns, "MACHINE"), wider)


def sort_links(links: list[LinkChannel], order: str) -> list[LinkChannel]:
    """Return the links sorted by output, or by messages or losses with the largest first."""
    by_name = sorted(
        links, key=lambda link: (link.dataflow, natural(link.output), natural(link.machine))
    )
    if order == "r":
        return sorted(by_name, key=lambda link: -link.messages)
    if order == "d":
        return sorted(by_name, key=lambda link: -link.lost)
    return by_name


def node_row(info: NodeInfo) -> tuple[str, ...]:
    """Return the row of a node under `NODES`."""
    used = info.metrics
    network = f"{rate(used.net_tx)} / {rate(used.net_rx)}" if used.net_known else "-"
    return (
        info.node,
        status_text(info),
        info.dataflow_name or info.dataflow[:8],
        "-" if info.pid is None else str(info.pid),
        f"{used.cpu:.1f}",
        f"{used.memory / 1e6:.1f}",
        str(info.restarts),
        str(info.pending),
        "-" if info.deadline_misses is None else str(info.deadline_misses),
        milliseconds(info.tick_jitter),
        network,
        f"{rate(used.disk_read)} / {rate(used.disk_write)}",
    )


def edge_row(edge: EdgeStats) -> tuple[str, ...]:
    """Return the row of an edge under `EDGES`."""
    broken = " (broken)" if edge.broken else ""
    return (
        f"{edge.source} -> {edge.target}{broken}",
        f"{edge.rate:.1f}",
        milliseconds(edge.latency),
        "/".join(map(milliseconds, (edge.latency_p50, edge.latency_p99, edge.latency_worst))),
        milliseconds(edge.jitter),
        f"{edge.dropped} + {edge.losses} lost" if edge.losses else str(edge.dropped),
        f"{edge.drop_rate:.1f}",
        f"{edge.queued}/{edge.queue_size}",
        rate(edge.bandwidth),
    )


def link_row(link: LinkChannel, dataflow: str) -> tuple[str, ...]:
    """Return the row of an output on its way between two machines, under `LINKS`."""
    direction = "to" if link.outgoing else "from"
    latency = None if link.latency_us is None else link.latency_us / 1e6
    return (
        f"{link.output} {direction} {link.machine}",
        dataflow,
        str(link.messages),
        str(link.lost),
        str(link.queued),
        milliseconds(latency),
    )


def interface_row(interface: InterfaceRates) -> tuple[str, ...]:
    """Return the row of a network interface under `INTERFACES`."""
    return (
        interface.name,
        rate(interface.received),
        rate(interface.sent),
        f"{interface.dropped:.1f}",
    )
