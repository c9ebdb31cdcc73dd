"""The methods `top` and `topic.…`: messages and rates, from the machines of their outputs."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.naming import ended
from dorad.control.session import Call, handles
from dorad.control.topparts import interval, reduction
from dorad.control.wiring import one_topic, topics, topics_named
from dorafleet.coordinator.dataflowstates import pending_nodes
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.robotcalls import ask, ask_one, until_begun
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.robotstreams import RobotStreams
from dorafleet.coordinator.streams import merged
from dorafleet.coordinator.topicrates import watch_rates

ROBOTS_A_SECOND = 100
"""Robots that one `top.watch` asks in a second."""
MAX_CURVES = 200
"""Robots in one answer of `robot.history`."""
CURVES_S = 5.0
"""Seconds for which the figures of a robot are kept, however many consoles show them."""


class TopicMethods:
    """Answers the methods `top`, `topic.…` and `robot.history`."""

    def __init__(self, fleet: Fleet, robots: Robots, streams: RobotStreams) -> None:
        self._fleet = fleet
        self._robots = robots
        self._streams = streams
        self._curves: dict[str, tuple[float, m.RobotCurves | None]] = {}
        """The figures of robots, and until when they are kept; None for one without an answer."""

    @handles(m.TOP)
    async def top(self, _call: Call, _params: m.Nothing) -> m.Top:
        """Measure all running nodes and their edges, on all machines that have some."""
        return await self.measure(self._fleet.running, self._busy())

    @handles(m.TOP_WATCH)
    async def watch_top(self, _call: Call, params: m.TopWatch) -> AsyncIterator[m.TopPart]:
        """Yield the chosen part of each measurement, until the dataflow has ended."""
        wanted = None if params.dataflow is None else self._fleet.find(params.dataflow)
        params.dataflow = None if wanted is None else wanted.uuid
        if params.machine is not None:
            self._robots.get(params.machine)
        reduce = reduction(params)
        while True:
            began = time.monotonic()
            if wanted is not None and not self._fleet.still_runs(wanted):
                raise ended(wanted)
            records = self._fleet.running if wanted is None else [self._fleet.find(wanted.uuid)]
            if params.machine is not None:
                robots = [params.machine]
            else:
                robots = self._busy() if params.dataflow is None else _robots_of(records)
            yield reduce(await self.measure(records, robots))
            pause = max(interval(params), len(robots) / ROBOTS_A_SECOND)
            await asyncio.sleep(max(0.1, pause - (time.monotonic() - began)))

    def _busy(self) -> list[str]:
        """Return the robots that run something, from a dataflow or from a release."""
        released = [
            robot.id
            for robot in self._robots.all
            if robot.client and any(each.running for each in robot.releases.values())
        ]
        return list(dict.fromkeys([*_robots_of(self._fleet.running), *released]))

    async def measure(self, records: Sequence[DataflowRecord], robots: Sequence[str]) -> m.Top:
        """Return what runs on these robots, with the pending nodes of these dataflows."""
        answers, missing = await ask(self._robots, robots, m.TOP, m.Nothing())
        placed = {record.uuid: record.robots for record in self._fleet.records}
        names = {record.uuid: record.name for record in records}
        replace = msgspec.structs.replace
        top = m.Top(
            at=time.time(),
            window=max((each.window for each in answers.values()), default=0.0),
            nodes=[],
            edges=[],
            missing=missing,
        )
        for robot, each in answers.items():
            top.nodes += [
                replace(
                    node,
                    machine=robot,
                    dataflow_name=names.get(node.dataflow, node.dataflow_name),
                )
                for node in each.nodes
                if robot in placed.get(node.dataflow, (robot,))
            ]
            top.edges += [
                replace(edge, machine=robot)
                for edge in each.edges
                if robot in placed.get(edge.dataflow, (robot,))
            ]
            top.links += [replace(link, reporter=robot) for link in each.links]
            top.interfaces += [replace(interface, machine=robot) for interface in each.interfaces]
        for record in records:
            top.nodes += pending_nodes(record)
        return top

    @handles(m.TOP_HISTORY)
    async def history(self, _call: Call, params: m.TopHistory) -> m.History:
        """Return the last ten minutes of a dataflow, from all its machines."""
        record = self._fleet.find(params.dataflow, ended_too=True)
        params.dataflow = record.uuid
        answers, missing = await ask(self._robots, record.robots, m.TOP_HISTORY, params)
        replace = msgspec.structs.replace
        history = m.History(
            at=time.time(),
            step=max((each.step for each in answers.values()), default=0.0),
            left_out=sum(each.left_out for each in answers.values()),
            missing=missing,
        )
        for robot, each in answers.items():
            history.nodes += [replace(curves, machine=robot) for curves in each.nodes]
            history.edges += [replace(curves, machine=robot) for curves in each.edges]
        return history

    @handles(m.ROBOT_HISTORY)
    async def robot_history(self, _call: Call, params: m.RobotHistoryQuery) -> m.RobotHistory:
        """Return the last ten minutes of robots, each asked once in a while."""
        now = time.monotonic()
        self._curves = {robot: each for robot, each in self._curves.items() if each[0] > now}
        named = dict.fromkeys(params.robots)
        wanted = [each for each in named if self._robots.find(each)][:MAX_CURVES]
        due = [each for each in wanted if each not in self._curves]
        answers, _ = await ask(self._robots, due, m.ROBOT_HISTORY, m.RobotHistoryQuery())
        until = time.monotonic() + CURVES_S
        for robot in due:
            own = answers[robot].robots if robot in answers else {}
            # A daemon may call its machine by another name than the fleet does.
            curves = next(iter(own.values()), None)
            self._curves[robot] = (until, None if curves is None else _cut(curves))
        known = {each: self._curves[each][1] for each in wanted if each in self._curves}
        return m.RobotHistory(robots={robot: each for robot, each in known.items() if each})

    @handles(m.TOPIC_LIST)
    async def list_all(self, _call: Call, params: m.Ref) -> m.TopicList:
        """List the topics of a dataflow and their subscribers."""
        record = self._fleet.find(params.dataflow, ended_too=True)
        robots = record.robots if record.running else ()
        ref = m.Ref(dataflow=record.uuid)
        answers, _ = await ask(self._robots, robots, m.TOPIC_LIST, ref)
        links = [
            msgspec.structs.replace(link, reporter=robot)
            for robot, each in answers.items()
            for topic in each.topics
            for link in topic.links
        ]
        return m.TopicList(dataflow=record.uuid, topics=topics(self._fleet.dataflow(record), links))

    @handles(m.TOPIC_WATCH)
    async def watch(self, call: Call, params: m.TopicWatch) -> AsyncIterator[m.TopicRates]:
        """Yield the rates of topics once a second, measured on their machines."""
        record = self._fleet.find(params.dataflow)
        if params.window < 1:
            raise ControlError("bad-request", "`window` must be at least 1 second")
        chosen = await self._chosen(record, params.topics)

        def runs() -> bool:
            return self._fleet.still_runs(record)

        own = m.TopicWatch(dataflow=record.uuid, window=params.window)
        streams = partial(self._streams.stream, call.peer)
        async with aclosing(watch_rates(self._robots, streams, own, chosen, runs)) as events:
            async for event in events:
                yield event

    @handles(m.TOPIC_SUBSCRIBE)
    async def subscribe(
        self, call: Call, params: m.TopicSubscribe
    ) -> AsyncIterator[tuple[m.TopicHeader, memoryview]]:
        """Yield the messages of topics, from the machines of their nodes."""
        record = self._fleet.find(params.dataflow)
        chosen = await self._chosen(record, params.topics)
        streams = {
            robot: self._streams.frames(
                call.peer,
                robot,
                msgspec.structs.replace(params, dataflow=record.uuid, topics=names),
            )
            for robot, names in chosen.items()
        }
        async with merged(streams) as events:
            async for _, (header, data) in events:
                yield msgspec.structs.replace(header, stream=call.id), data

    @handles(m.TOPIC_PUBLISH)
    async def publish(self, _call: Call, params: m.TopicPublish) -> m.Published:
        """Send messages on a topic on the machine of its node, as the node would."""
        record = self._fleet.find(params.dataflow)
        name = str(one_topic(self._fleet.dataflow(record), params.topic))
        ((robot, (topic,)),) = (await self._chosen(record, [name])).items()
        own = msgspec.structs.replace(params, dataflow=record.uuid, topic=topic)
        return await ask_one(self._robots, robot, m.TOPIC_PUBLISH, own)

    async def _chosen(self, record: DataflowRecord, wanted: list[str]) -> dict[str, list[str]]:
        """Return the topics with these names, or all without any, by machines that know them."""
        chosen: dict[str, list[str]] = {}
        for topic in topics_named(self._fleet.dataflow(record), wanted):
            robot = record.placement.get(topic.node)
            if robot is not None:
                chosen.setdefault(robot, []).append(str(topic))
            elif wanted:
                why = record.pending.get(topic.node, "")
                raise ControlError("unavailable", f"node `{topic.node}` runs nowhere yet: {why}")
        await until_begun(self._fleet, self._robots, record, chosen)
        return chosen


def _robots_of(records: Sequence[DataflowRecord]) -> list[str]:
    return list(dict.fromkeys(id_ for record in records for id_ in record.robots))


def _cut(curves: m.RobotCurves) -> m.RobotCurves:
    """Return curves without more points than there should be: a robot may send any number."""
    fields = m.RobotCurves.__struct_fields__
    return m.RobotCurves(**{name: getattr(curves, name)[-m.ROBOT_POINTS :] for name in fields})
