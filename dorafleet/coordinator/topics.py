"""The methods `top` and `topic.…`: messages and rates, from the machines of their outputs."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.naming import ended
from dorad.control.session import HandlerTable
from dorad.control.topparts import interval, reduction
from dorad.control.wiring import one_topic, topics, topics_named
from dorafleet.coordinator.asking import ask, ask_one, until_begun
from dorafleet.coordinator.folding import pending_nodes
from dorafleet.coordinator.streams import merged
from dorafleet.coordinator.topicrates import watch_rates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dorad.control.server import Call
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.records import Record
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.robotstreams import RobotStreams

ROBOTS_A_SECOND = 100
"""Robots that one `top.watch` asks in a second."""


class TopicMethods:
    """Answers the methods `top` and `topic.…`."""

    def __init__(self, fleet: Fleet, robots: Robots, streams: RobotStreams) -> None:
        self._fleet = fleet
        self._robots = robots
        self._streams = streams

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(m.TOP, self.top)
        table.stream(m.TOP_WATCH, self.watch_top)
        table.call(m.TOPIC_LIST, self.list_all)
        table.stream(m.TOPIC_WATCH, self.watch)
        table.frames(m.TOPIC_SUBSCRIBE, self.subscribe)
        table.call(m.TOPIC_PUBLISH, self.publish)
        return table

    async def top(self, _call: Call, _params: m.Nothing) -> m.Top:
        """Measure all running nodes and their edges, on all machines that have some."""
        return await self._measure(self._fleet.running, self._busy())

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
            yield reduce(await self._measure(records, robots))
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

    async def _measure(self, records: Sequence[Record], robots: Sequence[str]) -> m.Top:
        """Return what runs on these robots, with the pending nodes of these dataflows."""
        found, missing = await ask(self._robots, robots, m.TOP, m.Nothing())
        placed = {record.uuid: record.robots for record in self._fleet.records}
        names = {record.uuid: record.name for record in records}
        replace = msgspec.structs.replace
        top = m.Top(
            at=time.time(),
            window=max((each.window for each in found.values()), default=0.0),
            nodes=[],
            edges=[],
            missing=missing,
        )
        for robot, each in found.items():
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

    async def list_all(self, _call: Call, params: m.Ref) -> m.TopicList:
        """List the topics of a dataflow and their subscribers."""
        record = self._fleet.find(params.dataflow, ended_too=True)
        robots = record.robots if record.running else ()
        ref = m.Ref(dataflow=record.uuid)
        found, _ = await ask(self._robots, robots, m.TOPIC_LIST, ref)
        links = [
            msgspec.structs.replace(link, reporter=robot)
            for robot, each in found.items()
            for topic in each.topics
            for link in topic.links
        ]
        return m.TopicList(dataflow=record.uuid, topics=topics(self._fleet.dataflow(record), links))

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

    async def publish(self, _call: Call, params: m.TopicPublish) -> m.Published:
        """Send messages on a topic on the machine of its node, as the node would."""
        record = self._fleet.find(params.dataflow)
        name = str(one_topic(self._fleet.dataflow(record), params.topic))
        ((robot, (topic,)),) = (await self._chosen(record, [name])).items()
        own = msgspec.structs.replace(params, dataflow=record.uuid, topic=topic)
        return await ask_one(self._robots, robot, m.TOPIC_PUBLISH, own)

    async def _chosen(self, record: Record, wanted: list[str]) -> dict[str, list[str]]:
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


def _robots_of(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(id_ for record in records for id_ in record.robots))
