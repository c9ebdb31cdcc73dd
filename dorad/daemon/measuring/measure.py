"""Measure all running dataflows once a second: resources of processes, traffic of edges."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

import psutil

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages import DataflowInfo, InterfaceRates
from dorad.daemon.measuring.history import History
from dorad.daemon.measuring.metrics import NodeMeter
from dorad.daemon.measuring.rates import EdgeHistory, without_zeros
from dorad.daemon.measuring.summary import MAX_TEXT, failed_text
from dorad.daemon.measuring.troubles import Troubles, TroubleWatch
from dorad.daemon.rules.finish import node_of
from dorad.dataflow.model import LINK, NodeSpec
from dorad.dataflow.types.ports import output_rates
from dorad.int64 import clamped
from dorad.logs.excerpt import with_error
from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dorad.daemon.broker.readings import EdgeCounters, Lateness
    from dorad.daemon.measuring.network import NetworkWatch
    from dorad.daemon.record import Record
    from dorad.daemon.registry import Registry
    from dorad.daemon.rules.health import Vitals
    from dorad.daemon.run import DataflowRun
    from dorad.daemon.supervisor.noderun import NodeView

WINDOW_S = 5.0
"""Time span of the delay and jitter figures."""

_NS = 1e9


class Ticks(NamedTuple):
    """How late a node takes its timer ticks. Times in seconds; None after too few ticks.

    `delay` is the mean time from when a tick was due until the node took it, `jitter` the mean
    difference of successive delays. `worst` and `missed` cover all ticks since the start.
    """

    missed: int
    worst: float
    delay: float | None = None
    jitter: float | None = None


class _Totals(NamedTuple):
    received: int
    late: int
    difference: int


class TickHistory:
    """Samples of the nodes of one dataflow over the last seconds. Add one once a second."""

    def __init__(self, window: float = WINDOW_S) -> None:
        self._window = window
        self._samples: dict[str, deque[tuple[float, _Totals]]] = {}
        self._now: dict[str, Ticks] = {}

    def add(self, at: float, lateness: Iterable[Lateness]) -> None:
        """Add the counters of all timers, read at `at` (monotonic seconds)."""
        by_node: dict[str, list[Lateness]] = {}
        for each in lateness:
            by_node.setdefault(each.node, []).append(each)
        samples: dict[str, deque[tuple[float, _Totals]]] = {}
        self._now = {}
        for node, timers in by_node.items():
            kept = samples[node] = self._samples.get(node) or deque()
            totals = _Totals(
                sum(each.received for each in timers),
                sum(each.sum for each in timers),
                sum(each.diff for each in timers),
            )
            if kept and totals.received < kept[-1][1].received:
                kept.clear()  # a timer was removed
            kept.append((at, totals))
            while len(kept) > 2 and kept[1][0] <= at - self._window:
                kept.popleft()
            missed = sum(each.missed for each in timers)
            worst = max(each.most for each in timers) / _NS
            self._now[node] = Ticks(missed, worst, *_means(kept[0][1], totals))
        self._samples = samples

    def ticks(self, node: str) -> Ticks | None:
        """Return the figures of a node; None if it has no timer."""
        return self._now.get(node)


def _means(first: _Totals, last: _Totals) -> tuple[float | None, float | None]:
    count = last.received - first.received
    if count <= 0:
        return None, None
    late = (last.late - first.late) / count / _NS
    return late, (last.difference - first.difference) / count / _NS


_MIN_SECONDS = 0.001


class Counts(NamedTuple):
    """Counters of one interface: bytes in both directions, and dropped or erroneous packets."""

    received: int
    sent: int
    dropped: int


def read() -> dict[str, Counts]:
    """Return the counters of the interfaces of this process's network namespace."""
    return {
        name: Counts(c.bytes_recv, c.bytes_sent, c.dropin + c.dropout + c.errin + c.errout)
        for name, c in psutil.net_io_counters(pernic=True).items()
    }


class InterfaceMeter:
    """Measures all interfaces. Call `sample` about once a second, never concurrently."""

    def __init__(
        self,
        counters: Callable[[], Mapping[str, Counts]] = read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._at = 0.0
        self._before: Mapping[str, Counts] = {}

    def sample(self) -> list[InterfaceRates]:
        """Return the rates since the last sample, for interfaces that existed then."""
        now, counts = self._clock(), self._counters()
        seconds = max(now - self._at, _MIN_SECONDS)
        sampled = []
        for name, after in counts.items():
            if (then := self._before.get(name)) is not None:
                received, sent, dropped = (
                    max(0, a - b) / seconds for a, b in zip(after, then, strict=True)
                )
                rates = InterfaceRates(name=name, received=received, sent=sent, dropped=dropped)
                sampled.append(rates)
        self._at, self._before = now, counts
        return sampled


EVERY_S = 1.0

_OWN = ("", "")
"""Key of the daemon itself among the measured nodes."""

_IDLE = m.NodeMetrics()

_log = logging.getLogger(__name__)


class Measure:
    """The latest measurements, and the history for rates. Belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        network: NetworkWatch,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Report the first of successive failures to the operator with `warn`."""
        self._registry = registry
        self._warn = warn
        self._network = network
        self._interface_meter = InterfaceMeter()
        self._interfaces: list[m.InterfaceRates] = []
        self._meter: NodeMeter[tuple[str, str]] = NodeMeter()
        self._metrics: dict[tuple[str, str], m.NodeMetrics] = {}
        self._edges: dict[str, EdgeHistory] = {}
        self._ticks: dict[str, TickHistory] = {}
        self._troubles: dict[str, TroubleWatch] = {}
        self._history = History()

    async def run(self) -> None:
        """Measure once a second until cancelled; after a failure, try again."""
        failed = False
        while True:
            try:
                await self._sample()
                failed = False
            except Exception as error:  # noqa: BLE001 - the cause may be temporary
                if not failed:
                    self._warn(f"cannot measure nodes: {error!r}; trying again")
                failed = True
                _log.debug("measuring failed", exc_info=True)
            await asyncio.sleep(EVERY_S)

    async def _sample(self) -> None:
        running = {
            record.uuid: (record, record.run)
            for record in self._registry.records
            if record.run is not None and record.run.opened
        }
        self._troubles = {uuid: each for uuid, each in self._troubles.items() if uuid in running}
        pids = {
            (uuid, node): view.pid
            for uuid, (_, run) in running.items()
            for node, view in run.supervisor.statuses().items()
            if view.pid is not None
        }
        now = time.monotonic()
        self._edges = {uuid: self._edges.get(uuid) or EdgeHistory() for uuid in running}
        self._ticks = {uuid: self._ticks.get(uuid) or TickHistory() for uuid in running}
        for uuid, (record, run) in running.items():
            counters = run.broker.stats.counters()
            self._edges[uuid].add(now, counters)
            self._ticks[uuid].add(now, run.broker.stats.lateness())
            self._watch_troubles(record, run, now, counters)
        self._metrics, self._interfaces = await asyncio.to_thread(
            lambda: (
                self._meter.sample({**pids, _OWN: os.getpid()}),
                self._interface_meter.sample(),
            )
        )
        self._watch_memory(now, pids)
        if self._history.due(now):
            nodes = {key: each for key, each in self._metrics.items() if key != _OWN}
            edges = [edge for uuid, each in self._edges.items() for edge in each.stats(uuid)]
            self._history.add(now, nodes, edges)

    def _watch_memory(self, now: float, pids: Mapping[tuple[str, str], int]) -> None:
        memory: dict[str, dict[str, tuple[int, int]]] = {uuid: {} for uuid in self._troubles}
        for (uuid, node), each in self._metrics.items():
            if uuid in memory:
                memory[uuid][node] = (pids[uuid, node], each.memory)
        for uuid, processes in memory.items():
            self._troubles[uuid].add_memory(now, processes)

    def _watch_troubles(
        self, record: Record, run: DataflowRun, now: float, counters: list[EdgeCounters]
    ) -> None:
        if record.status != "running":
            self._troubles.pop(record.uuid, None)  # nodes end one after the other
            return
        watch = self._troubles.get(record.uuid)
        if watch is None:
            watch = self._troubles[record.uuid] = TroubleWatch(run.paces)
        share = record.row.options.share
        limits = {**output_rates(run.dataflow), **({} if share is None else share.min_rates)}
        parts = taking_part(record, run, counters)
        down = {name for name, peer in run.link.links.peers().items() if peer.state != "up"}
        watch.add(now, counters, parts, limits, run.log.counts, down)
        run.keep_paces(watch.snapshot())

    def own(self) -> m.NodeMetrics:
        """Return the resources that the daemon itself uses."""
        return self._metrics.get(_OWN, _IDLE)

    def history(self, record: Record, node: str | None, points: int) -> m.History:
        """Return the last ten minutes of a dataflow, or of one of its nodes and its edges."""
        return self._history.read(record.uuid, node, time.time(), points)

    def whole_history(self) -> m.RobotCurves:
        """Return the last ten minutes of all that runs here."""
        return self._history.whole()

    def network(self) -> m.Network | None:
        """Return the current state of the network; None while it is unknown."""
        return self._network.now

    def node_count(self, record: Record) -> int:
        """Return the number of running node processes."""
        if record.run is None:
            return 0
        return sum(view.pid is not None for view in record.run.supervisor.statuses().values())

    def dataflow(self, record: Record) -> DataflowInfo:
        """Return a dataflow with the total resources of its nodes."""
        metrics = [
            each
            for (uuid, _), each in self._metrics.items()
            if uuid == record.uuid and record.running
        ]
        return record.info(
            nodes=self.node_count(record),
            cpu=sum(each.cpu for each in metrics),
            memory=sum(each.memory for each in metrics),
            why=_why(record),
        )

    def nodes(self, record: Record) -> list[m.NodeInfo]:
        """Return all nodes of a running dataflow."""
        if record.run is None:
            return []
        return [self.node(record, node) for node in record.run.dataflow.nodes]

    def node(self, record: Record, node: NodeSpec) -> m.NodeInfo:
        """Return one node of a running dataflow. Raises ControlError if it was removed."""
        assert record.run is not None
        view = record.run.supervisor.status(node.id)
        if view is None:
            raise ControlError("not-found", f"node {node.id} has just been removed")
        history = self._ticks.get(record.uuid)
        return node_info(
            record.run,
            node,
            view,
            name=record.name,
            metrics=self._metrics.get((record.uuid, node.id), _IDLE),
            ticks=None if history is None else history.ticks(node.id),
        )

    def troubles(self) -> dict[str, Troubles]:
        """Return what is wrong in each dataflow although its nodes run, by its UUID."""
        return {uuid: watch.now() for uuid, watch in self._troubles.items()}

    def top(self) -> m.Top:
        """Return the latest figures of all running dataflows."""
        nodes, edges, links, window = [], [], [], 0.0
        for record in self._registry.records:
            if record.run is None:
                continue
            of_record = self.nodes(record)
            nodes += of_record
            links += record.run.channels
            history = self._edges.get(record.uuid)
            if history is not None:
                broken = [
                    f"{node.node}/{name}" for node in of_record for name in node.broken_inputs
                ]
                edges += history.stats(record.uuid, broken, name=record.name)
                window = max(window, history.window)
        return m.Top(
            at=time.time(),
            window=window,
            nodes=nodes,
            edges=edges,
            interfaces=self._interfaces,
            links=links,
        )


def _why(record: Record) -> str:
    """Return why a dataflow has failed, or which nodes of a running one have."""
    if record.run is None or not record.running:
        failures = record.state().failures
        return first_of([with_error(x.headline, x.lines)[:MAX_TEXT] for x in failures], 1)
    texts = [
        failed_text(node, "failed", view.last_exit, view.last_error)
        for node, view in record.run.supervisor.statuses().items()
        if view.status == "failed"
    ]
    return first_of(texts, 1)


def node_info(
    run: DataflowRun,
    node: NodeSpec,
    view: NodeView,
    *,
    name: str | None,
    metrics: m.NodeMetrics,
    ticks: Ticks | None,
) -> m.NodeInfo:
    """Return one node of a dataflow with this name, from its last measurement."""
    vitals = _vitals(run, node.id)
    return m.NodeInfo(
        dataflow=run.dataflow_id,
        dataflow_name=name,
        node=node.id,
        status=view.status,
        pid=view.pid,
        restarts=view.restarts,
        metrics=metrics,
        broken_inputs=list(view.broken_inputs),
        pending=0 if vitals is None else clamped(vitals.queued),
        stamps_refused=0 if vitals is None else clamped(vitals.stamps_refused),
        protocol=run.broker.stats.protocol(node.id),
        dynamic=node.is_dynamic,
        started_at=view.started_at,
        secrets=list(node.secrets),
        old_secrets=[] if view.pid is None else run.old_secrets(node, view.started_at),
        last_exit=view.last_exit,
        last_error=view.last_error,
        ended_by=_ended_by(run, node.id, view),
        deadline_misses=None if ticks is None else clamped(ticks.missed),
        tick_delay=None if ticks is None else ticks.delay,
        tick_jitter=None if ticks is None else ticks.jitter,
        tick_worst=None if ticks is None else ticks.worst,
        work=_work(run, node.id),
    )


def _work(run: DataflowRun, node_id: str) -> list[m.InputWork]:
    return [
        m.InputWork(
            input=name,
            topic=work.topic,
            durations=without_zeros(work.counts),
            seconds=clamped(work.total) / _NS,
        )
        for name, work in run.tracer.work(node_id).items()
    ]


def taking_part(
    record: Record, run: DataflowRun, counters: Iterable[EdgeCounters]
) -> dict[str, object]:
    """Return, for each node that is connected, what a command can change about it.

    Of a node of another machine that is only whether it has ended.
    """
    connected, views = run.broker.stats.connected(), run.supervisor.statuses()
    parts: dict[str, object] = {}
    if LINK in connected:
        outputs = {each.output for each in counters if each.source_node == LINK}
        gone = {node_of(each) for each in outputs if run.supervisor.has_ended_elsewhere(each)}
        parts = dict.fromkeys({LINK, *map(node_of, outputs)} - gone, "link")
    for node in run.dataflow.nodes:
        if node.id != LINK and node.id in connected and (view := views.get(node.id)) is not None:
            params = dict(record.params.get(node.id, {}))
            parts[node.id] = (view.pid, node.inputs, node.operators, params)
    return parts


def _vitals(run: DataflowRun, node_id: str) -> Vitals | None:
    """Return the vitals of a node; None while the dataflow has no mailboxes."""
    try:
        return run.broker.stats.vitals(node_id)
    except KeyError:
        _log.debug("node %s has no mailbox: its dataflow starts or ends", node_id)
        return None


def _ended_by(
    run: DataflowRun, node_id: str, view: NodeView
) -> Literal["command", "inputs"] | None:
    if view.status != "stopped":
        return None
    if view.stopped:
        return "command"
    return "inputs" if run.supervisor.has_drained(node_id) else None
