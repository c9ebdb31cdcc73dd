"""The traces of recorded messages: joined from the hop records that recordings keep."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.int64 import clamped
from dorad.phrases import moment_text
from dorad.record.encoding.extras import HOPS, HOPS_TOPIC
from dorad.record.mcap.reader import RecordingError, RecordingReader, merged
from dorad.record.sources import open_all
from dorad.shm.hoplog import is_possible
from dorad.trace import hopbatch
from dorad.trace.join import Joiner
from dorad.trace.machines import MAX_MACHINES, Joined, Part, join, paths
from dorad.trace.store import MAX_DATAFLOWS, TraceStore, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorad.record.damage import Missing
    from dorad.record.sources import Recording
    from dorad.trace.hopbatch import HopBatch

MAX_BYTES = 64 << 20
"""Memory of the traces of one machine in recordings."""
MAX_RUNS = 64
"""Daemons whose records are joined at the same time."""
MAX_NAMED = 3
"""Recordings that an error names."""

_log = logging.getLogger(__name__)


class _Run:
    """The records that one daemon has read of one dataflow."""

    def __init__(self, batch: HopBatch, time: int) -> None:
        self.joiner = Joiner()
        self.machine = batch.machine
        self.begin = time
        self.earlier = self.next = batch.first
        """How many records it had read before the first batch, and before the next one."""
        self.read = self.missing = self.damaged = 0
        self._before = self.losses = batch.losses

    @property
    def counts(self) -> m.TraceCounts:
        """How many records there are, and what was lost since the first of them."""
        lost, before = self.losses, self._before
        return m.TraceCounts(
            records=self.read,
            overwritten=clamped(max(0, lost.overwritten - before.overwritten)),
            skipped=clamped(max(0, lost.skipped - before.skipped)),
            damaged=clamped(max(0, lost.damaged - before.damaged) + self.damaged),
            unknown=self.joiner.unknown,
            drops=clamped(self.joiner.drops),
        )


class RecordedTraces:
    """The traces of recordings, asked for as from a daemon.

    Their batches come by time; those that several recordings have come several times.
    """

    def __init__(self) -> None:
        self._stores: dict[str, TraceStore] = {}
        """By machine; all that did not say theirs are one."""
        self._joined: list[Joined] = []
        """The traces of dataflows over several machines, after `end`."""
        self._runs: dict[tuple[str, str], _Run] = {}
        self._dataflows: set[str] = set()
        self._counts = m.TraceCounts()
        self._missing = 0
        self._earlier: list[tuple[int, int]] = []
        """When the first records of each daemon were read, and how many it had read before."""
        self.lacking: list[str] = []
        """What the recordings do not have, one sentence each, after `end`."""
        self.damaged: list[tuple[Path, list[Missing]]] = []
        """What cannot be read, by file."""

    def add(self, data: bytes | memoryview, time: int) -> None:
        """Add a message of `HOPS_TOPIC`; `time` in ns since 1970."""
        try:
            batch = hopbatch.decode(data)
            hops = batch.hops()
        except ValueError as error:
            _log.debug("hop records of %d: %s", time, error)
            self._counts.damaged += 1
            return
        run = self._run_of(batch, time)
        if run is None or batch.first < run.next:
            return
        run.missing += batch.first - run.next
        run.next = batch.first + len(hops)
        run.read += len(hops)
        run.losses = batch.losses
        possible = [hop for hop in hops if is_possible(hop, time)]
        run.damaged += len(hops) - len(possible)
        run.joiner.add(batch.node, batch.places, possible, batch.read_ns)
        if batch.exit is not None:
            gone = frozenset(batch.exit.threads)
            run.joiner.process_ended(
                batch.node, gone.__contains__, batch.read_ns, failed=batch.exit.failed
            )
        self._settle(batch.dataflow, run, batch.read_ns)

    def _run_of(self, batch: HopBatch, time: int) -> _Run | None:
        """Return the run of a batch; None if there are too many dataflows or machines."""
        key = (batch.dataflow, batch.run)
        run = self._runs.get(key)
        if run is None:
            flows, stores = len(self._dataflows), len(self._stores)
            if (batch.dataflow not in self._dataflows and flows >= MAX_DATAFLOWS) or (
                batch.machine not in self._stores and stores >= MAX_MACHINES
            ):
                self._counts.unknown = clamped(self._counts.unknown + len(batch))
                return None
            if len(self._runs) >= MAX_RUNS:
                self._end(next(iter(self._runs)))
            self._dataflows.add(batch.dataflow)
            self._stores.setdefault(batch.machine, TraceStore(MAX_BYTES, steady_s=0.0))
            run = self._runs[key] = _Run(batch, time)
        return run

    def end(self) -> None:
        """Take all traces as they are: no batch comes any more."""
        for key in [*self._runs]:
            self._end(key)
        if any(self._stores):
            self._joined = join(
                [
                    Part(machine, whole())
                    for machine, store in self._stores.items()
                    for dataflow in sorted(self._dataflows)
                    for _, whole in store.kept(dataflow)
                ]
            )
        if self._earlier:
            begin, count = min(self._earlier)[0], sum(count for _, count in self._earlier)
            self.lacking.append(
                f"nodes had made {count} records before {moment_text(begin)}, when these "
                "recordings begin"
            )
        if self._missing:
            self.lacking.append(
                f"{self._missing} records of nodes are missing in between: the recorder has "
                "dropped them, or they were cut out"
            )

    def _end(self, key: tuple[str, str]) -> None:
        run = self._runs.pop(key)
        self._settle(key[0], run, 0, everything=True)
        if run.earlier and len(self._earlier) < MAX_RUNS:
            self._earlier.append((run.begin, run.earlier))
        self._missing += run.missing
        self._counts = m.TraceCounts.total((self._counts, run.counts))

    def _settle(self, dataflow: str, run: _Run, now_ns: int, *, everything: bool = False) -> None:
        for tree in run.joiner.settle(now_ns, everything=everything):
            self._stores[run.machine].add(dataflow, tree)

    def _chosen(self, dataflow: str | None) -> list[str]:
        if dataflow is None:
            return sorted(self._dataflows)
        if dataflow in self._dataflows:
            return [dataflow]
        raise RecordingError(
            f"the recordings have no dataflow {dataflow!r}",
            f"they have {', '.join(sorted(self._dataflows))}",
        )

    def traces(self, dataflow: str | None = None, **query: Any) -> m.TraceList:
        """Return the traces that a `TraceQuery` chooses. Raises RecordingError."""
        asked = m.TraceQuery(dataflow=dataflow, **query)
        chosen = self._chosen(dataflow)
        if self._joined:
            known = self._whole(chosen, asked.id)
            asked.id = ""  # that of a part stands for the whole
        else:
            known = [
                each
                for store in self._stores.values()
                for uuid in chosen
                for each in store.kept(uuid)
            ]
        traces, left_out = choose(known, asked)
        return m.TraceList(traces=traces, counts=self._counts, left_out=left_out)

    def trace_paths(
        self, dataflow: str | None = None, *, through: Sequence[str] = ()
    ) -> m.TracePaths:
        """Return the figures of the paths. Raises RecordingError."""
        chosen = self._chosen(dataflow)
        known = [
            replace(path, machine=machine or None)
            for machine, store in self._stores.items()
            for uuid in chosen
            for path in store.paths(uuid, through)
        ]
        if self._joined:
            query = m.TraceQuery(through=[*through], limit=len(self._joined), spans=True)
            over, _ = choose(self._whole(chosen, ""), query)
            known += paths(over)
        left_out = sum(store.left_out for store in self._stores.values())
        return m.TracePaths(paths=known, counts=self._counts, left_out=left_out)

    def _whole(
        self, dataflows: Sequence[str], trace_id: str
    ) -> list[tuple[m.Trace, Callable[[], m.Trace]]]:
        """Return the traces over machines of which one part, or the whole, has an id."""
        return [
            (each.trace, partial(replace, each.trace))
            for each in self._joined
            if each.trace.dataflow in dataflows
            and any(part.trace.id.startswith(trace_id) for part in each.parts)
        ]


def read_traces(paths: Sequence[Path]) -> RecordedTraces:
    """Return the traces of recordings; a folder stands for the recordings in it.

    Raises:
        RecordingError: a file cannot be read, or none has hop records.
    """
    traces = RecordedTraces()
    with ExitStack() as stack:
        recordings = open_all([file for path in paths for file in _files_of(path)], stack)
        without = [each for each in recordings if not each.topics().get(HOPS_TOPIC)]
        readers = [each for each in recordings if isinstance(each, RecordingReader)]
        for message in merged(readers, topics=(HOPS_TOPIC,)):
            traces.add(message.data, message.time)
        traces.end()
        lacking = [f"{each.path} {_why_without(each)}" for each in without]
        if len(without) == len(recordings):
            raise RecordingError("; ".join(lacking[:MAX_NAMED]))
        traces.lacking += lacking
        traces.damaged = [
            (each.path, missing) for each in readers if (missing := each.damage.missing())
        ]
    return traces


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.mcap"))
    if not files:
        raise RecordingError(
            f"{path} has no recordings", "name a file, or the folder of an incident"
        )
    return files


def _why_without(recording: Recording) -> str:
    """Return why a recording has no hop records, after its name."""
    if not isinstance(recording, RecordingReader):
        return "has no hop records: it was made by dora 1.x"
    if recording.maker:
        return f"has no hop records: it was made by {recording.maker}"
    about = recording.metadata.get("dora.recording", {})
    if HOPS not in about:
        version = about.get("version", "unknown")
        return f"has no hop records: it was made by an older version of dorad ({version})"
    if about[HOPS] != "1":
        return "has no hop records: the daemon was of an older version than its recorder"
    return "has no hop records: no node did anything, or they were cut out"
