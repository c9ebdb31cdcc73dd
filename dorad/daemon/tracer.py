"""Reads the hop records of a running dataflow, keeps its traces, and feeds its recorders."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dorad.control import messages as m
from dorad.daemon.broker.broker import Emitter
from dorad.daemon.broker.hopreader import HopReader
from dorad.daemon.broker.stats import Stats
from dorad.dataflow.recording import HOPS_INPUT
from dorad.int64 import clamped
from dorad.shm.layout import HOPS
from dorad.trace import hopbatch
from dorad.trace.build import as_trace
from dorad.trace.hopbatch import Exit, HopBatch, Losses
from dorad.trace.join import Joiner, Work
from dorad.trace.store import TraceStore

SHORTEST_S, LONGEST_S = 0.05, 0.5
"""Bounds of the time between two reads."""
RECORDED_S = 0.15
"""Upper bound with a recorder, which ends half a second after all other nodes."""
MAX_PRESENT = 500
"""Traces of one dataflow that are shown before they are complete."""

_log = logging.getLogger(__name__)


class Tracer:
    """Joins what the nodes of one dataflow record to traces."""

    def __init__(
        self,
        dataflow_id: str,
        hops: HopReader,
        emitter: Emitter,
        stats: Stats,
        store: TraceStore,
        has_failed: Callable[[str], bool],
        machine: str = "",
    ) -> None:
        """`has_failed` returns True if the last process of a node did not exit well.

        `machine` is this one, if the dataflow is over several.
        """
        self._dataflow_id = dataflow_id
        self._run_id = secrets.token_hex(4)
        self._hops = hops
        self._emitter = emitter
        self._stats = stats
        self._store = store
        self._has_failed = has_failed
        self._machine = machine
        self._joiner = Joiner()
        self._records = self._skipped = 0
        self._pids: dict[str, int | None] = {}
        self._ended: set[str] = set()
        """Nodes whose process has ended since the last read."""

    async def run(self) -> None:
        """Read records until cancelled, then take what there is as complete."""
        busiest, before = 0, time.monotonic()
        try:
            while True:
                longest = RECORDED_S if self._hops.recorders() else LONGEST_S
                await asyncio.sleep(interval(busiest, time.monotonic() - before, longest))
                before = time.monotonic()
                busiest = self.read()
        finally:
            self.read()
            self.read()  # now the exits of the last processes are known
            self._settle(everything=True)

    def read(self, *, wanted: bool = False) -> int:
        """Read what is new, unless there is too much of it and it is not `wanted` by a client.

        Return the largest number of new records of one node.
        """
        unread = self._hops.unread()
        allowed = self._store.budget.allows(time.monotonic()) or wanted
        gone = self._find_ended()
        recorders = self._hops.recorders()
        for node in unread:
            if not allowed:
                self._skipped += self._hops.skip(node)
                continue
            hops, places = self._hops.read(node), self._hops.places(node)
            now_ns = time.monotonic_ns()
            self._joiner.add(node, places, hops, now_ns)
            if recorders:
                self._record(recorders, hopbatch.batches(self._batch(node, now_ns), places, hops))
            self._records += len(hops)
            self._store.budget.spend(len(hops))
        for node in gone:
            failed = self._has_failed(node)
            _log.debug("the process of node %s has ended, failed: %s", node, failed)
            now_ns = time.monotonic_ns()
            threads = self._joiner.process_ended(node, _is_gone, now_ns, failed=failed)
            if threads and recorders:
                end = Exit(sorted(threads), failed)
                self._record(recorders, [self._batch(node, now_ns, end)])
        self._settle()
        return max(unread.values(), default=0)

    def _batch(self, node: str, now_ns: int, end: Exit | None = None) -> HopBatch:
        """Return a batch of the next records, without them."""
        lost = self.counts
        return HopBatch(
            self._dataflow_id,
            self._run_id,
            self._records,
            now_ns,
            node,
            losses=Losses(lost.overwritten, lost.skipped, lost.damaged),
            exit=end,
            machine=self._machine,
        )

    def _record(self, recorders: Sequence[str], batches: Iterable[HopBatch]) -> None:
        """Send batches to recorders. What they do not get is missing in the order of `first`."""
        try:
            for batch in batches:
                data = hopbatch.encode(batch)
                for recorder in recorders:
                    self._emitter.emit_bytes(recorder, HOPS_INPUT, data)
        except OSError as error:
            _log.warning("hop records of %s are not recorded: %s", self._dataflow_id, error)

    def _find_ended(self) -> set[str]:
        """Return the nodes whose process ended before the last read: its exit is known by now."""
        gone, self._ended = self._ended, set()
        pids = {node: self._stats.pid(node) for node in self._stats.connected()}
        for node, pid in self._pids.items():
            if pids.get(node) != pid:
                self._ended.add(node)
        self._pids = pids
        return gone

    def _settle(self, *, everything: bool = False) -> None:
        for tree in self._joiner.settle(time.monotonic_ns(), everything=everything):
            self._store.add(self._dataflow_id, tree)

    def present(self) -> Iterator[m.Trace]:
        """Yield the traces that are not complete yet, with their spans."""
        for tree in self._joiner.present(MAX_PRESENT):
            yield as_trace(tree, self._dataflow_id)

    def work(self, node: str) -> Mapping[str, Work]:
        """Return how long a node worked on the messages of each input."""
        return self._joiner.work.get(node, {})

    @property
    def counts(self) -> m.TraceCounts:
        """How many records were read, and what was lost."""
        return m.TraceCounts(
            records=self._records,
            overwritten=clamped(self._hops.overwritten),
            skipped=clamped(self._skipped),
            damaged=clamped(self._hops.damaged),
            unknown=self._joiner.unknown,
            drops=clamped(self._joiner.drops),
            contexts=clamped(self._joiner.contexts),
        )


def interval(busiest: int, seconds: float, longest: float = LONGEST_S) -> float:
    """Return the seconds until the next read, before a third of a node's ring is new.

    `busiest` is the largest number of records that a node wrote in the last `seconds`.
    """
    if not busiest:
        return longest
    return min(longest, max(SHORTEST_S, HOPS / 3 * seconds / busiest))


def _is_gone(thread: int) -> bool:
    return not Path("/proc", str(thread)).exists()
