"""What the streams of a coordinator show is the union over connected robots: a seeded model.

Robots come, go, stall and lie; after each step every stream must show exactly what the robots that
can answer have of their own, and nothing of one that was lost.
"""

import asyncio
import os
import random
import time
from contextlib import aclosing
from itertools import count

import pytest

from dorad.control import messages as m
from dorad.control.peer import Peer
from dorad.control.session import Call
from dorafleet.coordinator import logstreams, overview, robotcalls, topicrates
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import MACHINES, leading
from tests.harness.waiting import until

SEEDS = [1, 2, 3]
STEPS = 10
ROBOTS = ("arm1", "arm2", "arm3")
FLOW = {
    "nodes": [
        {"id": f"node{robot[-1]}", "path": "x.py", "outputs": ["out"], "deploy": {"machine": robot}}
        for robot in ROBOTS
    ]
}
FOREIGN = "5eed0000-0000-4000-8000-000000000000"
"""The UUID of a dataflow that only a robot knows."""


def topic_of(robot):
    return f"node{robot[-1]}/out"


class Robot(FakeAgent):
    """A robot with a daemon behind its agent, which may stall, or speak for others."""

    def __init__(self, robot, port, uuid):
        super().__init__(robot, port)
        self.uuid = uuid
        self.stalled = False
        self.lies = False
        self.lines: list[str] = []
        """All that it has written to its log."""
        self.moved = asyncio.Event()
        self.handlers |= {
            "topic.watch": self.rates,
            "top": self.top,
            "logs.read": self.logs,
            "watch": self.events,
            "incident.list": self.incidents,
            "fleet.watch": self.row,
        }

    def change(self, **fields):
        for name, value in fields.items():
            setattr(self, name, value)
        self.moved.set()
        self.moved = asyncio.Event()

    def write(self, text):
        self.lines.append(text)
        self.change()

    async def answers(self):
        """Wait while it is stalled."""
        while self.stalled:
            await self.moved.wait()

    async def soon(self):
        try:
            async with asyncio.timeout(0.05):
                await self.moved.wait()
        except TimeoutError:
            pass

    @property
    def claimed(self):
        """The robots for which it speaks."""
        return ROBOTS if self.lies else (self.robot,)

    async def rates(self, _call, params):
        while True:
            await self.answers()
            rates = [rate(topic_of(each), self.robot) for each in self.claimed]
            yield m.TopicRates(at=time.time(), rates=rates + rates)
            await self.soon()

    async def top(self, _call, _params):
        await self.answers()
        nodes = [node(f"node{self.robot[-1]}", self.uuid, self.robot)]
        if self.lies:
            nodes += [node("made-up", "of-another", each) for each in ROBOTS]
        return m.Top(at=time.time(), window=1.0, nodes=nodes, edges=[])

    async def logs(self, _call, params):
        sent = 0
        while True:
            await self.answers()
            lines = self.lines[sent:]
            sent += len(lines)
            machine = "arm1" if self.lies else None
            yield m.LogLines(
                dataflow=self.uuid, lines=[line(self.robot, text, machine) for text in lines]
            )
            await self.soon()

    async def events(self, _call, params):
        while True:
            await self.answers()
            yield m.Event(at=time.time(), dataflow=self.uuid, what="beat", text=self.robot)
            if self.lies:
                yield m.Event(
                    at=time.time(), dataflow=FOREIGN, what="beat", text="lie", machine="arm1"
                )
            await self.soon()

    async def incidents(self, _call, params):
        await self.answers()
        boxes = [box(self.uuid, self.robot, self.robot)]
        if self.lies:
            boxes.append(box("its-own", self.robot, "arm1"))
        return m.IncidentList(boxes=boxes)

    async def row(self, _call, _params):
        while True:
            await self.answers()
            yield m.FleetRows(
                at=time.time(),
                rows=[
                    m.FleetRow(
                        robot="arm1" if self.lies else self.robot,
                        dataflow=f"flow-of-{self.robot}",
                        findings=[finding(self.robot)],
                    )
                ],
            )
            await self.soon()


def rate(topic, by):
    return m.TopicRate(topic=topic, hz=float(by[-1]), bandwidth=0.0, count=1)


def node(id_, dataflow, machine):
    return m.NodeInfo(
        node=id_,
        dataflow=dataflow,
        dataflow_name=None,
        status="running",
        pid=1,
        restarts=0,
        metrics=m.NodeMetrics(),
        machine=machine,
    )


def line(robot, text, machine):
    number = float(text.rpartition(" ")[2])
    return m.LogRecord(
        timestamp=1000.0 + number,
        level="info",
        node=f"node{robot[-1]}",
        message=text,
        machine=machine,
    )


def box(dataflow, name, machine):
    return m.BlackBox(dataflow=dataflow, name=name, folder="/x", incidents=[], machine=machine)


def finding(robot):
    return m.Finding(cause="made-up", subject=robot, text=f"of {robot}", severity="warn", since=1.0)


class Screen:
    """The last event of each stream, as an operator's screen has it."""

    def __init__(self, fleet):
        self._table = fleet.control.table
        self._tasks = []
        self.rates = self.top = None
        self.alerts = []
        self.rows = {}
        self.lines = []
        self.heard = {}
        """The robots of the events, and when one came."""

    def follow(self, method, params, take):
        async def read():
            peer = Peer(0, os.getuid(), os.getgid(), name="ann")
            stream = self._table[method](Call(1, method, peer, "test 1"), params)
            async with aclosing(stream) as events:
                async for event in events:
                    take(event)

        self._tasks.append(asyncio.create_task(read(), name=method))

    def start(self, dataflow):
        self.follow("topic.watch", m.TopicWatch(dataflow=dataflow), self._take_rates)
        self.follow("top.watch", m.TopWatch(dataflow=dataflow, interval=0.1), self._take_top)
        self.follow("logs.read", m.LogRead(dataflow=dataflow, follow=True), self._take_lines)
        self.follow("watch", m.Watch(dataflow=dataflow), self._take_event)
        self.follow("fleet.watch", m.FleetWatch(interval=0.1), self._take_rows)
        self.follow("alerts.watch", m.AlertWatch(interval=0.1), self._take_alerts)

    def _take_rates(self, event):
        self.rates = event

    def _take_top(self, event):
        self.top = event.top

    def _take_lines(self, event):
        self.lines += [each for each in event.lines if each.node is not None]

    def _take_event(self, event):
        assert event.text != "lie"
        if event.what == "beat":
            assert event.text == event.machine
            self.heard[event.machine] = time.monotonic()

    def _take_rows(self, event):
        self.rows |= {row.robot: row for row in event.rows}

    def _take_alerts(self, event):
        self.alerts = event.alerts

    async def stop(self):
        for task in self._tasks:
            if task.done() and not task.cancelled():
                pytest.fail(f"the stream {task.get_name()} has ended: {task.exception()}")
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class World:
    """The fleet, the screen, and what the screen must show."""

    def __init__(self, fleet, screen, robots, uuid):
        self.fleet = fleet
        self.screen = screen
        self.robots = robots
        self.uuid = uuid

    @property
    def present(self):
        """The robots that can answer."""
        return {r.robot for r in self.robots.values() if r.connected and not r.stalled}

    @property
    def connected(self):
        return {r.robot for r in self.robots.values() if r.connected}

    async def check(self):
        """Wait until all streams show what is so."""
        began = time.monotonic()
        for what in (self.topics, self.top, self.events, self.rows, self.alerts, self.logs):
            try:
                await until(lambda what=what: what(began))
            except AssertionError:
                pytest.fail(f"{what.__name__} does not show {self.state}: {vars(self.screen)}")
        await self.incidents()

    @property
    def state(self):
        return {
            name: (r.connected, "stalled" if r.stalled else "", "lies" if r.lies else "")
            for name, r in self.robots.items()
        }

    def topics(self, _):
        shown = self.screen.rates
        if shown is None:
            return not self.present
        return (
            sorted((each.topic, each.hz) for each in shown.rates)
            == sorted((topic_of(each), float(each[-1])) for each in self.present)
            and shown.missing.keys() == set(ROBOTS) - self.present
        )

    def top(self, _):
        top = self.screen.top
        if top is None:
            return False
        mine = [each for each in top.nodes if each.dataflow == self.uuid]
        return (
            sorted((each.machine, each.node) for each in mine)
            == sorted((each, f"node{each[-1]}") for each in self.present)
            and top.missing.keys() == set(ROBOTS) - self.present
        )

    def events(self, began):
        """After the step, exactly those that are present go on."""
        return {robot for robot, at in self.screen.heard.items() if at > began} >= self.present

    def rows(self, _):
        states = {robot: row.state == "unreach" for robot, row in self.screen.rows.items()}
        own = {r for r, row in self.screen.rows.items() if row.dataflow == f"flow-of-{r}"}
        return {robot for robot, away in states.items() if away} == set(
            ROBOTS
        ) - self.connected and own >= self.present

    def alerts(self, _):
        made_up = {
            (robot, each.text)
            for each in self.screen.alerts
            if each.cause == "made-up"
            for robot in each.robots
        }
        lost = {
            robot
            for each in self.screen.alerts
            if each.cause == "unreachable"
            for robot in each.robots
        }
        return (
            {robot for robot, _ in made_up} >= self.present
            and {robot for robot, _ in made_up} <= self.connected
            and all(text.endswith(f"of {robot}") for robot, text in made_up)
            and lost == set(ROBOTS) - self.connected
        )

    def logs(self, _):
        """Every line of a present robot once, in its order, and as its own."""
        return all(
            [each.message for each in self.screen.lines if each.machine == robot]
            == self.robots[robot].lines
            for robot in self.present
        ) and all(each.message.startswith(f"{each.machine} ") for each in self.screen.lines)

    async def incidents(self):
        """Ask until the answer is right: on a busy machine one that is present may be late."""

        def is_right(answer):
            assert all(each.name == each.machine for each in answer.boxes)
            shown = {each.machine for each in answer.boxes}
            assert shown <= self.present
            assert answer.missing.keys() == set(ROBOTS) - shown
            return shown == self.present

        await until(lambda: self.fleet.call("incident.list", m.Ref(dataflow="talk")), is_right)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_streams_show_the_union_over_connected_robots_and_nothing_of_a_lost_one(
    tmp_path, monkeypatch, seed
):
    monkeypatch.setattr(robotcalls, "ANSWER_S", 1.0)
    monkeypatch.setattr(topicrates, "EVERY_S", 0.1)
    monkeypatch.setattr(topicrates, "AGAIN_S", 0.1)
    monkeypatch.setattr(topicrates, "STALE_S", 1.0)
    monkeypatch.setattr(logstreams, "AGAIN_S", 0.1)
    monkeypatch.setattr(overview, "CHECK_S", 0.05)
    monkeypatch.setattr(overview, "ROBOT_S", 0.1)
    chance, numbers = random.Random(seed), count(1)
    async with leading(tmp_path, MACHINES) as fleet:
        robots = {}
        for each in ROBOTS:
            robots[each] = fleet.agents[each] = Robot(each, fleet.port, "")
            await fleet.connect(robots[each])
        started = await fleet.start(FLOW)
        for each in robots.values():
            each.uuid = started.uuid
        await fleet.wait("running")
        screen = Screen(fleet)
        screen.start("talk")
        world = World(fleet, screen, robots, started.uuid)
        await world.check()
        for _ in range(STEPS):
            robot = robots[chance.choice(ROBOTS)]
            act = chance.choice(["go", "come", "stall", "resume", "lie", "write"])
            if act == "go":
                robot.change(stalled=False)
                await robot.stop()
            elif act == "come" and not robot.connected:
                await fleet.connect(robot)
            elif act in ("stall", "resume") and robot.connected:
                robot.change(stalled=act == "stall")
            elif act == "lie":
                robot.change(lies=not robot.lies)
            for each in robots.values():
                if each.connected and not each.stalled:
                    each.write(f"{each.robot} says {next(numbers)}")
            await world.check()
        await screen.stop()


async def test_a_robot_shows_nothing_as_part_of_a_dataflow_that_it_has_no_share_of(tmp_path):
    flow = {"nodes": FLOW["nodes"][:2]}
    async with leading(tmp_path) as fleet:
        robots = {each: Robot(each, fleet.port, "") for each in ROBOTS}
        for each, robot in robots.items():
            fleet.agents[each] = robot
            await fleet.connect(robot)
        uuid = (await fleet.start(flow)).uuid
        for robot in robots.values():
            robot.uuid = uuid
        await fleet.wait("running")
        # arm3 claims to run it, too; it also runs something else.
        await fleet.start({"nodes": FLOW["nodes"][2:]}, name="other")
        await fleet.wait("running", "other")
        top = await fleet.call("top")
        assert {each.machine for each in top.nodes if each.dataflow == uuid} == {"arm1", "arm2"}
        boxes = (await fleet.call("incident.list", m.Ref())).boxes
        assert {each.machine for each in boxes} == {"arm1", "arm2"}
        heard = set()
        async with aclosing(fleet.stream("watch", m.Watch())) as events:
            async for event in events:
                if event.what == "beat":
                    assert event.machine != "arm3"
                    heard.add(event.machine)
                    robots["arm3"].change()
                if heard == {"arm1", "arm2"}:
                    break


def test_figures_of_a_robot_that_sends_no_new_ones_are_not_shown_for_ever():
    board = topicrates.RatesBoard({"arm1": ["node1/out"], "arm2": ["node2/out"]}, 100.0)
    assert board.shown(100.5, 1.0) is None
    board.take("arm1", m.TopicRates(at=1.0, rates=[rate("node1/out", "arm1")]), 101.0)
    shown = board.shown(101.5, 2.0)
    assert [each.topic for each in shown.rates] == ["node1/out"]
    assert not shown.missing
    shown = board.shown(107.0, 3.0)
    assert not shown.rates
    assert shown.missing == {
        "arm1": "it has measured nothing for 6 s",
        "arm2": "it has measured nothing for 7 s",
    }
    board.end("arm2")
    board.lose("arm1", "the connection was lost")
    assert board.shown(108.0, 4.0).missing == {"arm1": "the connection was lost"}
