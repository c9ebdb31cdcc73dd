"""The methods `logs.read` and `watch`: lines and events of all machines of a dataflow, merged."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import NamedTuple

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.peer import Peer
from dorad.control.session import Call, handles
from dorad.dataflow.model import LINK, Dataflow
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.share import share
from dorad.logrecord import in_blocks
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.instances import Instances
from dorafleet.coordinator.logorder import QUIET_S, LogOrder
from dorafleet.coordinator.logstreams import RobotLines
from dorafleet.coordinator.onerobot import named_without_robot, owners, plain
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.robotstreams import RobotStreams
from dorafleet.coordinator.streams import merged

FRAME_LINES = 500

FRAME = 1 << 20
"""Maximum number of characters in a frame of several lines."""

JOIN_S = 0.5
"""Seconds until the events of a machine that joins are read."""

MAX_ROBOTS = 100
"""Robots whose lines are read at once."""

MIN_SKEW_S = 0.5
"""A clock that is less off is not reported with lines."""

DAEMON = "dora"
"""The name of the daemon among the nodes of a log."""

_OF_A_SHARE = ("dataflow-starting", "dataflow-running", "dataflow-ended")
"""Events that machines report of their shares, and the coordinator of the whole dataflow."""

_log = logging.getLogger(__name__)


class _Source(NamedTuple):
    """Where the lines of a dataflow are."""

    dataflow: str
    """As the robots know it."""
    nodes: Mapping[str, list[str]]
    """The nodes to ask for, by robot; none means all."""
    runs_on: Callable[[str], bool]
    """Whether a robot must still run it."""


class LogMethods:
    """Answers `logs.read` and `watch`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        instances: Instances,
        event_bus: EventBus,
        streams: RobotStreams,
    ) -> None:
        self._fleet = fleet
        self._instances = instances
        self._robots = robots
        self._streams = streams
        self._event_bus = event_bus

    @handles(m.LOGS_READ)
    async def read(self, call: Call, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        """Yield log lines of all machines in the order of their times; follow new ones."""
        if params.dataflow is not None and self._fleet.instance(params.dataflow) is not None:
            params = await plain(params, self._fleet, self._instances)
        source = self._source(params)
        away = {} if params.follow else self._robots.unreachable(source.nodes)

        def missing(robot: str, reason: str) -> m.LogLines:
            return m.LogLines(dataflow=source.dataflow, lines=[_missing(robot, reason)])

        for robot, reason in away.items():
            yield missing(robot, reason)
        streams = {
            robot: aclosing(self._lines(call.peer, robot, source, params).read())
            for robot in source.nodes
            if robot not in away
        }
        if not streams:
            return
        async with merged(streams, missing) as events:
            tail = None if params.follow else params.tail
            ordered = in_order(events, streams, self._skew, tail, self._machine)
            async with aclosing(ordered):
                async for lines, left_out in ordered:
                    skew = self._wrong_clocks(streams)
                    for block in in_blocks(lines, FRAME_LINES, FRAME) if lines else [[]]:
                        yield m.LogLines(
                            dataflow=source.dataflow, lines=block, left_out=left_out, skew=skew
                        )
                        left_out = 0

    def _source(self, params: m.LogRead) -> _Source:
        """Return the dataflow and the machines to ask. Raises ControlError."""
        own = owners(params.dataflow, self._fleet, self._robots)
        if own is not None:
            return self._source_of(*own, params)
        name = named_without_robot(params.dataflow, self._fleet)
        record = self._fleet.find(name.dataflow, ended_too=True)
        machine = params.machine or (None if params.nodes else name.robot)

        def runs_on(_robot: str) -> bool:
            return self._fleet.still_runs(record)

        return _Source(record.uuid, self._machines(record, params.nodes, machine), runs_on)

    def _source_of(self, name: str, robots: list[str], params: m.LogRead) -> _Source:
        """Return a dataflow that the coordinator has not placed. Raises ControlError."""
        if params.machine is not None:
            if params.machine not in robots:
                raise ControlError("not-found", f"`{name}` does not run on `{params.machine}`")
            robots = [params.machine]
        if len(robots) > MAX_ROBOTS:
            raise ControlError(
                "too-large",
                f"{len(robots)} robots run `{name}`; lines of {MAX_ROBOTS} can be read at once",
                f"name one: `{robots[0]}/{name}`",
            )

        def runs_on(robot: str) -> bool:
            known = self._robots.find(robot)
            return known is not None and name in known.releases

        return _Source(name, dict.fromkeys(robots, params.nodes), runs_on)

    def _lines(self, peer: Peer, robot: str, source: _Source, params: m.LogRead) -> RobotLines:
        nodes = source.nodes[robot]
        own = msgspec.structs.replace(
            params,
            dataflow=source.dataflow,
            nodes=nodes,
            machine=None,
            by_node={n: v for n, v in params.by_node.items() if n in nodes or not nodes},
        )
        streams = partial(self._streams.stream, peer)
        return RobotLines(self._robots, streams, self._fleet.bell, robot, own, source.runs_on)

    def _machine(self, robot: str) -> str:
        """Return the machine of a robot; its id, if it has told no machine id."""
        origin = self._robots.get(robot).origin
        return (origin.machine_id if origin is not None else "") or robot

    def _skew(self, robot: str) -> float:
        known = self._robots.find(robot)
        return 0.0 if known is None else known.skew.correction

    def _wrong_clocks(self, robots: Iterable[str]) -> dict[str, float]:
        known = filter(None, map(self._robots.find, robots))
        return {each.id: each.skew.seconds for each in known if each.skew.beyond(MIN_SKEW_S)}

    def _machines(
        self, record: DataflowRecord, wanted: list[str], machine: str | None
    ) -> dict[str, list[str]]:
        """Return the machines to ask, each with the nodes to ask for; none means all.

        With `machine`, that is this one alone. Raises ControlError if it has no such lines.
        """
        if machine is not None and machine not in record.robots:
            self._robots.get(machine)
            raise ControlError(
                "not-found",
                f"dataflow {record.key} does not run on `{machine}`, "
                f"but on {', '.join(record.robots)}",
            )
        robots = record.robots if machine is None else (machine,)
        if not wanted:
            return {robot: [] for robot in robots}
        flow = self._fleet.dataflow(record)
        known = [node.id for node in flow.nodes]
        chosen: dict[str, list[str]] = {}
        everywhere = {DAEMON: list(robots)}
        if LINK in wanted and (linked := _linked(flow, robots, record.placement)):
            everywhere[LINK] = linked
        for node in wanted:
            if node in everywhere:
                for robot in everywhere[node]:
                    chosen.setdefault(robot, []).append(node)
            elif node not in known:
                names = ", ".join(known) or "none"
                raise ControlError(
                    "not-found",
                    f"there is no node '{node}'; there are: {names}",
                    did_you_mean(node, known),
                )
            elif machine not in (None, record.placement.get(node)):
                where = f"on `{record.placement[node]}`" if node in record.placement else "nowhere"
                raise ControlError("not-found", f"node `{node}` runs {where}, not on `{machine}`")
            elif node in record.placement:
                chosen.setdefault(record.placement[node], []).append(node)
        return chosen

    @handles(m.WATCH)
    async def watch(self, call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        """Yield events of one dataflow, or of all, from all machines that can be reached."""
        record = None
        if params.dataflow is not None:
            record = self._fleet.find(params.dataflow, ended_too=True)
        uuid = None if record is None else record.uuid
        queue: asyncio.Queue[m.Event] = asyncio.Queue(1000)

        async def own() -> None:
            async for event in self._event_bus.subscribe(uuid):
                await queue.put(event)

        async def of(robot: str) -> None:
            told = ""
            while True:
                await self._fleet.bell.until(lambda: not self._robots.unreachable([robot]))
                try:
                    await self._pass_on(call.peer, robot, uuid, queue)
                except ControlError as error:
                    _log.debug("events of robot `%s` end: %s", robot, error)
                    if error.code == "busy" and error.message != told:
                        told = error.message
                        await queue.put(_without_events(robot, uuid, told))
                # A robot may not know the dataflow yet.
                await self._fleet.bell.wait(1.0)

        readers = {"": asyncio.create_task(own())}
        try:
            while True:
                # Machines join, with their dataflow or with a node that is added to it.
                for robot in self._taking_part(uuid) - readers.keys():
                    readers[robot] = asyncio.create_task(of(robot))
                with suppress(TimeoutError):
                    async with asyncio.timeout(JOIN_S):
                        event = await queue.get()
                    yield event
        finally:
            for reader in readers.values():
                reader.cancel()
            await asyncio.gather(*readers.values(), return_exceptions=True)

    def _taking_part(self, uuid: str | None) -> set[str]:
        """Return the machines of a dataflow, or of all, while they run."""
        return {
            robot
            for record in self._fleet.running
            if uuid in (None, record.uuid)
            for robot in record.robots
        }

    def _is_of(self, robot: str, dataflow: str, wanted: str | None) -> bool:
        """Return True if a robot may send events of a dataflow, and they are asked for."""
        if wanted is not None:
            return dataflow == wanted
        placed = next((r for r in self._fleet.running if r.uuid == dataflow), None)
        return placed is None or robot in placed.robots

    async def _pass_on(
        self, peer: Peer, robot: str, uuid: str | None, queue: asyncio.Queue[m.Event]
    ) -> None:
        params = m.Watch(dataflow=uuid)
        async with self._streams.stream(peer, robot, m.WATCH, params) as events:
            async for event in events:
                if event.what not in _OF_A_SHARE and self._is_of(robot, event.dataflow, uuid):
                    await queue.put(msgspec.structs.replace(event, machine=robot))


async def in_order(
    events: AsyncIterator[tuple[str, m.LogLines]],
    robots: Iterable[str],
    skew: Callable[[str], float],
    tail: int | None,
    machine: Callable[[str], str],
) -> AsyncGenerator[tuple[list[m.LogRecord], int], None]:
    """Yield lines of several robots in the order that `LogOrder` gives, and how many are left out.

    With `tail`, only the newest lines are yielded, once all robots have ended.
    """
    order = LogOrder(robots, skew, time.monotonic(), machine)
    left_out = 0
    pending = asyncio.ensure_future(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait([pending], timeout=QUIET_S)
            now = time.monotonic()
            event = pending.result() if done else None
            ended = event is None and bool(done)
            if event is not None:
                robot, lines = event
                order.add(robot, lines.lines, now, time.time())
                left_out += lines.left_out
                pending = asyncio.ensure_future(_next(events))
            if tail is not None:
                left_out += order.keep_newest(tail)
                if not ended:
                    continue
            ready = order.take_all() if ended else order.take(now)
            if ready or left_out:
                yield ready, left_out
                left_out = 0
            if ended:
                return
    finally:
        pending.cancel()


async def _next(
    events: AsyncIterator[tuple[str, m.LogLines]],
) -> tuple[str, m.LogLines] | None:
    return await anext(events, None)


def _without_events(robot: str, dataflow: str | None, reason: str) -> m.Event:
    return m.Event(
        at=time.time(),
        dataflow=dataflow or "",
        what="left-out",
        node=None,
        text=f"no events of robot `{robot}`: {reason}",
        machine=robot,
    )


def _missing(robot: str, reason: str) -> m.LogRecord:
    return m.LogRecord(
        timestamp=time.time(),
        level="warn",
        node=None,
        message=f"no lines of robot `{robot}`: {reason}",
        machine=robot,
    )


def _linked(flow: Dataflow, robots: Iterable[str], placement: Mapping[str, str]) -> list[str]:
    """Return the robots with a link process of a dataflow."""
    return [
        robot
        for robot in robots
        if any(node.id == LINK for node in share(flow, robot, placement).nodes)
    ]
