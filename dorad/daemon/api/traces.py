"""The methods `trace.…`: what became of messages, and where their time went."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.trace.store import MAX_RATE, TraceStore, choose, fitting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from dorad.daemon.tracer import Tracer

MAX_LIMIT = 20_000
"""Traces in an answer, at most."""


class TracedDataflow(NamedTuple):
    """A dataflow whose traces are asked for; `tracer` is None if it has ended."""

    uuid: str
    name: str | None
    tracer: Tracer | None
    origin: Callable[[str], m.TraceOrigin | None] | None = None
    """Returns where a topic comes from that another machine sends."""


class TraceMethods:
    """Answers the methods `trace.…`."""

    def __init__(
        self, store: TraceStore, find: Callable[[str | None], Sequence[TracedDataflow]]
    ) -> None:
        """`find` returns one dataflow by its name or UUID, or all; it raises ControlError."""
        self._store = store
        self._find = find

    @handles(m.TRACE_LIST)
    async def list_all(self, _call: Call, params: m.TraceQuery) -> m.TraceList:
        """Return the traces that are kept, and those that are not complete yet."""
        known: list[tuple[m.Trace, Callable[[], m.Trace]]] = []
        flows: dict[str, TracedDataflow] = {}
        counts = []
        for each in self._find(params.dataflow):
            flows[each.uuid] = each
            if each.tracer is not None:
                each.tracer.read(wanted=True)
                counts.append(each.tracer.counts)
                known += ((trace, partial(replace, trace)) for trace in each.tracer.present())
            self._store.keep(each.uuid, params.messages)
            known += self._store.kept(each.uuid)
        traces, left_out = choose(
            known, replace(params, limit=min(max(0, params.limit), MAX_LIMIT))
        )
        if params.spans:
            whole = fitting(traces)
            traces, left_out = whole, left_out + len(traces) - len(whole)
        else:
            traces = [replace(trace, spans=[]) for trace in traces]
        for trace in traces:
            flow = flows[trace.dataflow]
            trace.dataflow_name = flow.name
            if flow.origin is not None and trace.spans and trace.spans[0].remote:
                trace.origin = flow.origin(trace.spans[0].topic)
        return m.TraceList(traces=traces, counts=m.TraceCounts.total(counts), left_out=left_out)

    @handles(m.TRACE_PATHS)
    async def paths(self, _call: Call, params: m.TracePathQuery) -> m.TracePaths:
        """Return the figures of all paths since their dataflow, or this daemon, started."""
        paths = []
        counts = []
        for each in self._find(params.dataflow):
            if each.tracer is not None:
                each.tracer.read(wanted=True)
                counts.append(each.tracer.counts)
            for path in self._store.paths(each.uuid, params.through):
                paths.append(replace(path, dataflow_name=each.name))
        paths.sort(key=lambda path: -path.p99)
        return m.TracePaths(
            paths=paths, counts=m.TraceCounts.total(counts), left_out=self._store.left_out
        )

    @handles(m.TRACE_FOLLOW)
    async def follow(self, _call: Call, _params: m.Nothing) -> AsyncIterator[m.TraceBatch]:
        """Yield the traces that exporters get."""
        with self._store.export.follow() as queue:
            while True:
                batch = await queue.wait()
                names = {each.uuid: each.name for each in self._find(None)}
                for trace in batch.traces:
                    trace.dataflow_name = names.get(trace.dataflow)
                yield batch

    @handles(m.TRACE_SAMPLE)
    async def sample(self, _call: Call, params: m.TraceSample) -> m.TraceSampling:
        """Set how many traces of a source exporters get."""
        rate = params.rate
        if rate is not None and not 0 <= rate <= MAX_RATE:
            raise ControlError("bad-request", f"`rate` must be between 0 and {MAX_RATE:,}")
        if not self._store.export.set(params.source, rate):
            raise ControlError("refused", "too many sources have a rate; set that of all first")
        return self._store.export.sampling
