"""The traces that a daemon keeps, in bounded memory, and figures of all paths.

It keeps the slowest of each path, those with drops or failures, and one a second of each path.
"""

import heapq
import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec.structs import replace

from dorad.control import messages as m
from dorad.dataflow.model import LINK
from dorad.int64 import clamped
from dorad.trace.build import Steps, Way, as_trace, id_of, path_text, ways
from dorad.trace.linked import LinkedTraces
from dorad.trace.model import Tree, forget
from dorad.trace.sampling import TraceExport

MAX_BYTES = 8 << 20
MAX_SPANS = 100_000
"""Spans in an answer, at most: traces beyond that are left out."""
MAX_RATE = 10_000
"""Records a second that are read for the traces of all dataflows of one process."""
MAX_PATHS = 256
"""Paths of one dataflow with figures of their own."""
MAX_DATAFLOWS = 64
"""Dataflows with figures; those that began first are forgotten first."""
SLOWEST = 16
"""Traces of one path and WINDOW_S that are kept because they are the slowest."""
WINDOW_S = 600
STEADY_S = 1.0
"""Time between two traces of one path that are kept whatever they are like."""

_ENTRY_BYTES = 1500
"""What a kept trace needs besides its encoded spans, at most."""
_NS = 1e9

_log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[m.Span]).decode

PathKey = tuple[str, "Steps"]


def bucket_of(ns: int) -> int:
    """Return the bucket of a time: eight for each power of two."""
    shift = max(0, ns.bit_length() - 4)
    return (shift << 4) + (ns >> shift)


def end_of(bucket: int) -> int:
    """Return the smallest time in ns that is beyond a bucket."""
    return (bucket & 15) + 1 << (bucket >> 4)


class RecordBudget:
    """Allows MAX_RATE records a second, in turns of half a second or more if there are more."""

    def __init__(self, rate: float = MAX_RATE) -> None:
        self._rate = rate
        self._left = rate
        self._at = 0.0
        self._pausing = False

    def allows(self, now: float) -> bool:
        """Return True if records may be read at `now` (monotonic seconds)."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        pausing = self._left < (self._rate / 2 if self._pausing else 0)
        if pausing != self._pausing:
            _log.debug("hop records: %s", "too many, pausing" if pausing else "read again")
        self._pausing = pausing
        return not pausing

    def spend(self, count: int) -> None:
        """Count records that were read."""
        self._left -= count


class PathFigures:
    """Figures of all messages that took one path."""

    def __init__(self) -> None:
        self.total = self.wait = self.work = 0
        self.worst = -1
        self.worst_id = ""
        self.kept_at = float("-inf")
        """When the last trace began that was kept whatever it was like, in seconds since 1970."""
        self.slow_window = -1
        self.slow_ns = -1
        """What is not slower is not among the slowest of this window; -1 while all of them are."""
        self._buckets: defaultdict[int, int] = defaultdict(int)

    def add(self, way: Way) -> bool:
        """Count one message; return True if it was the slowest."""
        total = way.total
        self.total += total
        self.wait += way.wait
        self.work += way.work
        self._buckets[bucket_of(total)] += 1
        if total > self.worst:
            self.worst = total
            return True
        return False

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self._buckets.values())

    def percentile(self, percent: int) -> float:
        """Return the seconds that so many percent of the messages took at most."""
        wanted = -(-self.count * percent // 100)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(end_of(bucket) - 1, self.worst) / _NS
        return 0.0


class _Entry:
    __slots__ = ("data", "owners", "size", "summary")

    def __init__(self, trace: m.Trace) -> None:
        self.data: bytes = _encode(trace.spans)
        self.summary = replace(trace, spans=[])
        self.size = len(self.data) + _ENTRY_BYTES
        self.owners = 0

    def whole(self) -> m.Trace:
        """Return the trace with its spans."""
        return replace(self.summary, spans=_decode(self.data))


class TraceStore:
    """Kept traces of all dataflows of one process, running and ended."""

    def __init__(self, max_bytes: int = MAX_BYTES, *, steady_s: float = STEADY_S) -> None:
        """With a `steady_s` of 0 all traces are kept as long as they have room."""
        self.budget = RecordBudget()
        self.export = TraceExport()
        self._steady_s = steady_s
        self.bytes = 0
        """Memory of the kept traces, not more than `max_bytes`."""
        self._max_bytes = max_bytes
        self._entries: dict[tuple[str, str], _Entry] = {}
        """By dataflow and id, the newest last."""
        self._numbers = itertools.count()
        self._worst: dict[PathKey, _Entry] = {}
        self._slow: dict[tuple[int, PathKey], list[tuple[float, int, _Entry]]] = {}
        """Heaps, the fastest first; the oldest window first."""
        self._queues: dict[str, deque[_Entry]] = {
            "troubled": deque(), "steady": deque(), "asked": deque()
        }  # fmt: skip
        """The oldest first; those that were `asked` for are parts that other machines lacked."""
        self._held: dict[str, int] = dict.fromkeys(("worst", "slow", *self._queues), 0)
        """Bytes that each of these holds."""
        self._figures: dict[str, dict[Steps, PathFigures]] = {}
        self._linked = LinkedTraces()
        self.left_out = 0
        """Messages on paths without figures, because there are too many paths."""

    def add(self, dataflow: str, tree: Tree) -> None:
        """Count a complete trace, and keep it if it should be. The tree is not used afterwards."""
        if not self._add(dataflow, tree):
            forget(tree)

    def _add(self, dataflow: str, tree: Tree) -> bool:
        """Return True if the tree is remembered: it is part of a trace over machines."""
        first = tree.messages[0]
        start = first.sent / _NS
        window = int(start // WINDOW_S)
        worst: list[PathKey] = []
        slow: dict[tuple[int, PathKey], int] = {}
        """By window and path: how long the message took."""
        steady = False
        linked = not (first.local or first.tick)
        for way in ways(tree):
            linked = linked or way.steps[-1].node == LINK
            figures = self._figures_of(dataflow, way.steps) if way.complete else None
            if figures is None:
                continue
            if figures.add(way):
                figures.worst_id = id_of(tree, dataflow)
                worst.append((dataflow, way.steps))
            if way.total > figures.slow_ns or figures.slow_window != window:
                key = (window, (dataflow, way.steps))
                slow[key] = max(way.total, slow.get(key, 0))
            if not figures.kept_at <= start < figures.kept_at + self._steady_s:
                figures.kept_at = start
                steady = True
        if linked:
            steady = self._linked.add(dataflow, tree) or steady
        if slow:
            slow = {key: total for key, total in slow.items() if self._is_slow(key, total)}
        special = bool(worst or tree.troubled or slow)
        sampled = self.export.wants(first.topic, special=special)
        if not (special or steady or sampled):
            return linked
        trace = as_trace(tree, dataflow)
        if sampled:
            self.export.put(trace)
        if not (special or steady):
            return linked
        entry = _Entry(trace)
        if steady:
            self._queue(entry, "steady")
        for path in dict.fromkeys(worst):
            self._hold(entry, "worst")
            if path in self._worst:
                self._release(self._worst.pop(path), "worst")
            self._worst[path] = entry
        if tree.troubled:
            self._queue(entry, "troubled")
        for key, total in slow.items():
            self._hold(entry, "slow")
            heap = self._slow.setdefault(key, [])
            heapq.heappush(heap, (total, next(self._numbers), entry))
            if len(heap) > SLOWEST:
                self._release(heapq.heappop(heap)[2], "slow")
            self._set_slowest(key)
        self._displace()
        return linked

    def keep(self, dataflow: str, messages: Iterable[m.TraceMessage]) -> None:
        """Keep remembered traces with these messages over links: another machine keeps its part."""
        for tree in self._linked.with_messages(dataflow, messages):
            if (dataflow, id_of(tree, dataflow)) not in self._entries:
                entry = _Entry(as_trace(tree, dataflow))
                _log.debug("trace %s is kept for another machine", entry.summary.id)
                self._queue(entry, "asked")
        self._displace()

    def _queue(self, entry: _Entry, owner: str) -> None:
        self._hold(entry, owner)
        self._queues[owner].append(entry)

    def _set_slowest(self, key: tuple[int, PathKey]) -> None:
        """Let the figures of a path know from when on a message is slow: most are not."""
        window, (dataflow, steps) = key
        figures = self._figures.get(dataflow, {}).get(steps)
        if figures is not None:
            heap = self._slow.get(key, [])
            figures.slow_window = window
            figures.slow_ns = -1 if len(heap) < SLOWEST else int(heap[0][0])

    def _is_slow(self, key: tuple[int, PathKey], total: int) -> bool:
        """Return True if a message is among the slowest of its path and time."""
        heap = self._slow.get(key)
        return heap is None or len(heap) < SLOWEST or heap[0][0] < total

    def _figures_of(self, dataflow: str, steps: Steps) -> PathFigures | None:
        paths = self._figures.get(dataflow)
        if paths is None:
            if len(self._figures) >= MAX_DATAFLOWS:
                del self._figures[next(iter(self._figures))]
            paths = self._figures[dataflow] = {}
        figures = paths.get(steps)
        if figures is None:
            if len(paths) >= MAX_PATHS:
                self.left_out += 1
                return None
            figures = paths[steps] = PathFigures()
        return figures

    def _hold(self, entry: _Entry, owner: str) -> None:
        self._held[owner] += entry.size
        entry.owners += 1
        if entry.owners == 1:
            self.bytes += entry.size
            key = (entry.summary.dataflow, entry.summary.id)
            self._entries[key] = entry

    def _release(self, entry: _Entry, owner: str) -> None:
        self._held[owner] -= entry.size
        entry.owners -= 1
        if not entry.owners:
            self.bytes -= entry.size
            key = (entry.summary.dataflow, entry.summary.id)
            if self._entries.get(key) is entry:
                del self._entries[key]

    def _displace(self) -> None:
        """Release traces until they fit."""
        while self.bytes > self._max_bytes:
            self._release_one()

    def _release_one(self) -> None:
        """Release one trace of those that hold most."""
        owner = max(self._held, key=lambda each: self._held[each])
        if owner == "worst":
            self._release(self._worst.pop(next(iter(self._worst))), owner)
        elif owner == "slow":
            oldest = next(iter(self._slow))
            self._release(heapq.heappop(self._slow[oldest])[2], owner)
            if not self._slow[oldest]:
                del self._slow[oldest]
            self._set_slowest(oldest)
        else:
            self._release(self._queues[owner].popleft(), owner)

    def kept(self, dataflow: str) -> Iterator[tuple[m.Trace, Callable[[], m.Trace]]]:
        """Yield the kept traces of a dataflow without their spans, and what returns each whole."""
        for (uuid, _), entry in self._entries.items():
            if uuid == dataflow:
                yield entry.summary, entry.whole

    def paths(self, dataflow: str, through: Iterable[str] = ()) -> list[m.TracePath]:
        """Return the figures of the paths of a dataflow that pass some nodes."""
        known = self._figures.get(dataflow, {})
        texts: dict[str, int] = {}
        for steps in known:
            texts[path_text(steps)] = texts.get(path_text(steps), 0) + 1
        wanted = set(through)
        return [
            m.TracePath(
                dataflow=dataflow,
                path=path_text(steps, inputs=texts[path_text(steps)] > 1),
                count=clamped(figures.count),
                p50=figures.percentile(50),
                p99=figures.percentile(99),
                worst=max(0, figures.worst) / _NS,
                wait=_share(figures.wait, figures.total),
                work=_share(figures.work, figures.total),
                transport=_share(figures.total - figures.wait - figures.work, figures.total),
                worst_id=figures.worst_id,
            )
            for steps, figures in known.items()
            if wanted <= names_on(steps)
        ]


def _share(part: int, total: int) -> float:
    return min(1.0, max(0.0, part / total)) if total > 0 else 0.0


def names_on(steps: Steps) -> set[str]:
    """Return the nodes and topics that a path passes."""
    names = {steps[0][0].partition("/")[0]}
    for topic, node, _ in steps:
        names |= {topic, node}
    return names


def passed(trace: m.Trace) -> set[str]:
    """Return the nodes and topics that a trace with its spans passes."""
    names = {span.topic for span in trace.spans} | {span.node for span in trace.spans}
    return names | {topic.partition("/")[0] for topic in names}


def fitting(traces: Iterable[m.Trace]) -> list[m.Trace]:
    """Return the first traces, whose spans have room in an answer."""
    chosen, spans = [], 0
    for trace in traces:
        spans += len(trace.spans)
        if spans > MAX_SPANS:
            break
        chosen.append(trace)
    return chosen


def choose(
    known: Iterable[tuple[m.Trace, Callable[[], m.Trace]]], query: m.TraceQuery
) -> tuple[list[m.Trace], int]:
    """Return the traces that a query chooses, and how many its limit leaves out.

    `known` are traces without spans, and what returns each with them.
    """
    wanted = set(query.through)
    messages = {(each.topic, each.stamp) for each in query.messages}
    matching = []
    for summary, whole in known:
        if not summary.id.startswith(query.id) or summary.duration < query.min_duration:
            continue
        if query.troubled and not (summary.dropped or summary.failed):
            continue
        if wanted and not wanted <= passed(whole()):
            continue
        if messages and messages.isdisjoint((s.topic, s.stamp) for s in whole().spans):
            continue
        matching.append((summary, whole))
    if query.slow:
        matching.sort(key=lambda each: -each[0].duration)
    else:
        matching.sort(key=lambda each: -each[0].start)
    chosen = matching[: max(0, query.limit)]
    traces = [whole() if query.spans else summary for summary, whole in chosen]
    return traces, len(matching) - len(chosen)
