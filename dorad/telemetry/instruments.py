"""The metrics that the exporter makes: a row for each, with its name, unit, kind and values.

A new metric is a row of a table here, a row in docs/guide/telemetry.md, and a line of a test.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar, get_args

import psutil

from dorad.control.messages.nodes import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.control.messages import EdgeStats, NodeInfo

Labels = dict[str, str]
Kind = Literal["counter", "updown", "gauge", "histogram"]
"""What grows only, what may be added up, what may not, and what has a distribution."""
T = TypeVar("T")

STATUSES: tuple[str, ...] = get_args(NodeStatus)
_CORES = os.cpu_count() or 1


class Times(NamedTuple):
    """How often something took how long."""

    counts: Sequence[int]
    """Entry `n` counts times of `n` significant bits in nanoseconds."""
    total: float
    """Seconds."""


Value = float | Times
Values = Value | None | list[tuple[Labels, Value]]
"""One value, or one for each set of further attributes; None if it does not apply."""


class Machine(NamedTuple):
    """What the kernel counts on this machine."""

    cpu: Mapping[str, float]
    """Seconds of all processors since the boot, by mode."""
    memory: Mapping[str, float]
    """Bytes by state."""
    disk: tuple[float, float]
    """Bytes read and written."""
    network: Mapping[str, tuple[float, float, float, float]]
    """Of each interface: bytes received and sent, packets dropped in both directions."""
    uptime: float


def read_machine() -> Machine:
    """Return what the kernel counts now. Raises OSError if it does not say."""
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    disks = psutil.disk_io_counters()
    return Machine(
        {mode: getattr(times, mode) for mode in ("user", "system", "nice", "idle", "iowait")},
        {
            "used": memory.used,
            "free": memory.free,
            "cached": memory.cached,
            "buffers": memory.buffers,
        },
        (0, 0) if disks is None else (disks.read_bytes, disks.write_bytes),
        {
            name: (each.bytes_recv, each.bytes_sent, each.dropin, each.dropout)
            for name, each in psutil.net_io_counters(pernic=True).items()
        },
        time.time() - psutil.boot_time(),
    )


class Own(NamedTuple):
    """What the exporter counts about itself, by signal."""

    sent: Mapping[str, int]
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A metric: its name by the semantic conventions, its unit in UCUM, and its values."""

    name: str
    unit: str
    kind: Kind
    text: str
    read: Callable[[T], Values]


def _by_direction(counts: Mapping[str, tuple[float, ...]], at: int) -> list[tuple[Labels, Value]]:
    return [
        ({"network.interface.name": name, "network.io.direction": direction}, each[at + offset])
        for name, each in counts.items()
        for offset, direction in enumerate(("receive", "transmit"))
    ]


def message_labels(operation: str, topic: str, target: str) -> Labels:
    """Return the attributes of what a node does with the messages of a topic for an input."""
    return {
        "messaging.system": "dora",
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
        "dora.edge.target": target,
    }


OF_SENDERS: tuple[Row[EdgeStats], ...] = (
    Row(
        "messaging.client.sent.messages",
        "{message}",
        "counter",
        "Messages sent over an edge",
        lambda edge: edge.sent,
    ),
)
"""Of an edge, for the node that sends."""

OF_RECEIVERS: tuple[Row[EdgeStats], ...] = (
    Row(
        "messaging.client.consumed.messages",
        "{message}",
        "counter",
        "Messages received over an edge",
        lambda edge: edge.received,
    ),
    Row(
        "dora.edge.dropped",
        "{message}",
        "counter",
        "Messages that a full queue displaced",
        lambda edge: edge.dropped,
    ),
    Row(
        "dora.edge.lost",
        "{message}",
        "counter",
        "Messages lost between two machines, or on the way from ROS 2",
        lambda edge: edge.lost,
    ),
    Row(
        "dora.edge.unreadable",
        "{message}",
        "counter",
        "Received messages that were malformed",
        lambda edge: edge.unreadable,
    ),
    Row(
        "dora.edge.bytes", "By", "counter", "Bytes of the messages sent", lambda edge: edge.payload
    ),
    Row(
        "dora.edge.queue.depth",
        "{message}",
        "updown",
        "Messages that wait in the queue",
        lambda edge: edge.queued,
    ),
    Row(
        "dora.edge.queue.limit",
        "{message}",
        "updown",
        "Size of the queue",
        lambda edge: edge.queue_size,
    ),
    Row(
        "dora.edge.latency",
        "s",
        "histogram",
        "Time from sending to receiving",
        lambda edge: Times(edge.latencies, edge.latency_sum) if edge.latencies else None,
    ),
    Row(
        "dora.edge.broken",
        "1",
        "gauge",
        "1 after an input timeout, until messages come again",
        lambda edge: int(edge.broken),
    ),
)
"""Of an edge, for the node that receives."""

OF_NODES: tuple[Row[NodeInfo], ...] = (
    Row(
        "messaging.process.duration",
        "s",
        "histogram",
        "Time from receiving a message until asking for the next one",
        lambda node: [
            (
                message_labels("process", work.topic, f"{node.node}/{work.input}"),
                Times(work.durations, work.seconds),
            )
            for work in node.work
        ],
    ),
    Row("dora.node.restarts", "{restart}", "counter", "Restarts", lambda node: node.restarts),
    Row(
        "dora.node.status",
        "1",
        "updown",
        "1 for the present status of the node, 0 for all others",
        lambda node: [({"dora.node.status": each}, int(node.status == each)) for each in STATUSES],
    ),
    Row(
        "dora.timer.missed",
        "{tick}",
        "counter",
        "Timer ticks handled after the next was due, or never",
        lambda node: node.deadline_misses,
    ),
    Row(
        "dora.timer.late",
        "s",
        "gauge",
        "Mean time from when a tick was due until it was handled",
        lambda node: node.tick_delay,
    ),
    Row(
        "process.cpu.utilization",
        "1",
        "gauge",
        "Share of all processors that the node and its children use",
        lambda node: None if node.pid is None else node.metrics.cpu / 100 / _CORES,
    ),
    Row(
        "process.memory.usage",
        "By",
        "updown",
        "Resident memory of the node and its children",
        lambda node: None if node.pid is None else node.metrics.memory,
    ),
)

OF_NODES_IN_DORA: tuple[Row[NodeInfo], ...] = (
    Row("dora_node_cpu_usage", "", "gauge", "Percent of one core", lambda node: node.metrics.cpu),
    Row("dora_node_memory_bytes", "", "gauge", "Memory", lambda node: node.metrics.memory),
    Row("dora_node_pending_messages", "", "gauge", "Queued messages", lambda node: node.pending),
    Row("dora_node_restart_count", "", "gauge", "Restarts", lambda node: node.restarts),
)
"""The gauges of dora, with its names and attributes."""

OF_DATAFLOWS: tuple[Row[int], ...] = (
    Row("dora_dataflow_nodes", "", "gauge", "Nodes of a dataflow", lambda nodes: nodes),
)
"""The fifth of them, of the number of nodes."""

OF_MACHINE: tuple[Row[Machine], ...] = (
    Row(
        "system.cpu.time",
        "s",
        "counter",
        "Time of all processors by mode",
        lambda now: [({"cpu.mode": mode}, seconds) for mode, seconds in now.cpu.items()],
    ),
    Row(
        "system.memory.usage",
        "By",
        "updown",
        "Memory by state",
        lambda now: [({"system.memory.state": name}, each) for name, each in now.memory.items()],
    ),
    Row(
        "system.disk.io",
        "By",
        "counter",
        "Bytes read and written",
        lambda now: [
            ({"disk.io.direction": direction}, each)
            for direction, each in zip(("read", "write"), now.disk, strict=True)
        ],
    ),
    Row(
        "system.network.io",
        "By",
        "counter",
        "Bytes by interface",
        lambda now: _by_direction(now.network, 0),
    ),
    Row(
        "system.network.packet.dropped",
        "{packet}",
        "counter",
        "Packets dropped by interface",
        lambda now: _by_direction(now.network, 2),
    ),
    Row("system.uptime", "s", "gauge", "Time since the boot", lambda now: now.uptime),
)

OF_EXPORTER: tuple[Row[Own], ...] = (
    Row(
        "dora.telemetry.sent",
        "{item}",
        "counter",
        "Data points, log lines and traces that the collector has accepted",
        lambda own: [({"dora.telemetry.signal": name}, each) for name, each in own.sent.items()],
    ),
    Row(
        "dora.telemetry.dropped",
        "{item}",
        "counter",
        "Data points, log lines and traces that were not sent",
        lambda own: [({"dora.telemetry.signal": name}, each) for name, each in own.dropped.items()],
    ),
)
