"""The methods `trace.…`: what became of messages on robots, and where their time went."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.int64 import clamped
from dorad.trace.machines import Joined, Part, join, lacking, paths
from dorad.trace.store import choose, fitting
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.onerobot import robots_with
from dorafleet.coordinator.robotcalls import ask
from dorafleet.coordinator.robots import Robots

ROUNDS = 4
"""How often robots are asked for the parts before and after those that are known."""
MAX_MESSAGES = 500
"""Messages between machines whose other end is looked for in one of them."""
SAMPLE = 200
"""The latest traces of each robot, from which the figures of paths over machines are made."""

_log = logging.getLogger(__name__)


class _Answers(NamedTuple):
    """What robots have answered."""

    parts: list[Part]
    counts: m.TraceCounts
    left_out: int
    missing: dict[str, str]


class TraceMethods:
    """Answers the methods `trace.…`. Each machine has its part of a trace; here they are joined."""

    def __init__(self, fleet: Fleet, robots: Robots) -> None:
        self._fleet = fleet
        self._robots = robots

    @handles(m.TRACE_LIST)
    async def list_all(self, _call: Call, params: m.TraceQuery) -> m.TraceList:
        """Return the traces that robots keep, over several machines, too, chosen from all."""
        dataflow, there = robots_with(params.dataflow, self._fleet, self._robots)
        robots = [*there]
        # A part may lack what the whole trace has.
        own = replace(params, dataflow=dataflow, spans=True, through=params.through[:1])
        if len(robots) > 1:
            own = replace(own, min_duration=0.0)
        answers = await self._ask(robots, own)
        chosen = {_key(part) for part in answers.parts}
        whole = [
            each.trace
            for each in await self._joined(answers.parts, robots)
            if not chosen.isdisjoint(map(_key, each.parts))
        ]
        # A part was chosen by its own id.
        traces, left_out = choose(map(_known, whole), replace(params, id="", messages=[]))
        left_out += answers.left_out + len(traces)
        traces = fitting(traces)
        left_out -= len(traces)
        if not params.spans:
            traces = [replace(trace, spans=[]) for trace in traces]
        return m.TraceList(
            traces=traces,
            counts=answers.counts,
            left_out=clamped(left_out),
            missing=answers.missing,
        )

    async def _ask(self, robots: Iterable[str], query: m.TraceQuery) -> _Answers:
        """Return the parts that robots keep, and how the asking went."""
        unknown = m.TraceList(traces=[], counts=m.TraceCounts())
        answers, missing = await ask(self._robots, robots, m.TRACE_LIST, query, unknown=unknown)
        return _Answers(
            [Part(robot, trace) for robot, each in answers.items() for trace in each.traces],
            m.TraceCounts.total(each.counts for each in answers.values()),
            sum(each.left_out for each in answers.values()),
            missing,
        )

    async def _joined(self, parts: Sequence[Part], robots: Sequence[str]) -> list[Joined]:
        """Return whole traces of these parts, with those that robots have before and after them."""
        known = {_key(part): part for part in parts}
        asked: set[tuple[str, str, int]] = set()
        for _ in range(ROUNDS):
            wanted = sorted(lacking(known.values()) - asked)[:MAX_MESSAGES]
            if not wanted:
                break
            asked.update(wanted)
            by_flow: dict[str, list[m.TraceMessage]] = defaultdict(list)
            for flow, topic, stamp in wanted:
                by_flow[flow].append(m.TraceMessage(topic=topic, stamp=stamp))
            for flow, messages in by_flow.items():
                query = m.TraceQuery(
                    dataflow=flow, messages=messages, spans=True, limit=len(messages)
                )
                answers = await self._ask(self._with(flow, robots), query)
                _log.debug("%d of %d parts of %s", len(answers.parts), len(messages), flow)
                for part in answers.parts:
                    known.setdefault(_key(part), part)
        return join([*known.values()])

    def _with(self, dataflow: str, robots: Sequence[str]) -> Iterable[str]:
        """Return the robots of a dataflow, of those that were asked if nobody knows them."""
        try:
            return robots_with(dataflow, self._fleet, self._robots)[1]
        except ControlError:
            return robots

    @handles(m.TRACE_PATHS)
    async def paths(self, _call: Call, params: m.TracePathQuery) -> m.TracePaths:
        """Return the figures of the paths on all robots, and of those over several."""
        dataflow, there = robots_with(params.dataflow, self._fleet, self._robots)
        robots = [*there]
        answers, missing = await ask(
            self._robots,
            robots,
            m.TRACE_PATHS,
            replace(params, dataflow=dataflow),
            unknown=m.TracePaths(paths=[], counts=m.TraceCounts()),
        )
        known = [
            replace(path, machine=robot)
            for robot, answer in answers.items()
            for path in answer.paths
        ]
        if len(robots) > 1:
            known += await self._paths_over_machines(dataflow, params.through, robots)
        return m.TracePaths(
            paths=sorted(known, key=lambda path: -path.p99),
            counts=m.TraceCounts.total(answer.counts for answer in answers.values()),
            left_out=clamped(sum(answer.left_out for answer in answers.values())),
            missing=missing,
        )

    async def _paths_over_machines(
        self, dataflow: str | None, through: list[str], robots: Sequence[str]
    ) -> list[m.TracePath]:
        """Return the figures of paths over several machines, of the latest traces that are kept."""
        known = []
        for record in self._fleet.records:
            if dataflow not in (None, record.uuid) or len(record.robots) < 2:
                continue
            there = [each for each in record.robots if each in robots]
            query = m.TraceQuery(dataflow=record.uuid, limit=SAMPLE, spans=True)
            answers = await self._ask(there, query)
            whole = [each.trace for each in await self._joined(answers.parts, there)]
            query = m.TraceQuery(through=through, limit=len(whole), spans=True)
            known += paths(choose(map(_known, whole), query)[0])
        return known


def _key(part: Part) -> tuple[str, str, str]:
    return part.machine, part.trace.dataflow, part.trace.id


def _known(trace: m.Trace) -> tuple[m.Trace, Callable[[], m.Trace]]:
    return trace, lambda: trace
