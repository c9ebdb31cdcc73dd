"""The one loop that delivers: a model over loss, failures, new generations and restores."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dorad.control.errors import ControlError
from dorad.control.messages.agent import RELEASE_ORDER, SHARE_OPEN, SHARE_REMOVE, SHARE_SET
from dorad.control.messages.releases import ReleaseState
from dorafleet.coordinator.delivery import COMPARE_S, MAX_RETRY_S, RETRY_S, Delivery
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import Restored, RobotAssignment
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.verdicts import FINAL
from dorafleet.inventory.model import Machine

from .test_verdicts import record, share

ROBOTS = ("arm1", "arm2")
STARTED = ("talk", "map")
RELEASED = ("pick", "pack")
RELEASE = "7" * 64
WAITS = st.sampled_from([0.0, 0.005, 0.02, 0.5, 4.0, 40.0])
DEADLINE_S = 5.0
"""Seconds after which a request counts as unanswered."""


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self):
        self.now = 0.0
        super().__init__(Jumping(self))

    def time(self):
        return self.now


class Jumping(selectors.SelectSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        ready = super().select(0)
        assert ready or timeout is not None, "all tasks wait for something that never comes"
        if not ready:
            self._loop.now += timeout
        return ready


class Device:
    """What a robot has stored, and how it answers."""

    def __init__(self, id_):
        self.id = id_
        self.shares = {}
        self.releases = {}
        self.fault = ""
        self.refused = set()
        """Robot, name and generation."""

    def take(self, method, params):
        """Carry out a request as an agent does; return the new state."""
        name = params.dataflow
        known = self.releases if method is RELEASE_ORDER else self.shares
        if name in known and known[name].generation > params.generation:
            raise ControlError("conflict", f"it has generation {known[name].generation}")
        if method is SHARE_SET:
            status = "ready" if params.enabled else "stopped"
            self.shares[name] = share(name, params.generation, status)
        elif method is SHARE_OPEN:
            self.shares[name] = msgspec.structs.replace(self.shares[name], status="running")
        elif method is SHARE_REMOVE:
            self.shares.pop(name, None)
            return None
        else:
            self.releases[name] = ReleaseState(
                dataflow=name,
                epoch=params.epoch,
                generation=params.generation,
                phase="confirmed",
                since=0,
                release=params.release or "",
            )
        return known[name]


class Connection:
    """A connection to a device: what was sent over it, when, and how it was answered."""

    def __init__(self, device, clock):
        self.device = device
        self.clock = clock
        self.is_cut = asyncio.Event()
        self.sent = []

    async def call(self, method, params):
        key = (method.name, params.dataflow, params.generation)
        entry = [key, self.clock(), "unanswered"]
        self.sent.append(entry)
        device, fault = self.device, self.device.fault
        await asyncio.sleep(0.01)
        if self.is_cut.is_set():
            raise ControlError("unavailable", "the connection has ended")
        if fault == "lost":
            await self._silence()
        if fault == "full":
            raise ControlError("unavailable", "the disk is full")
        if fault == "refuses" and method in (SHARE_SET, RELEASE_ORDER):
            entry[2] = "refused"
            device.refused.add((params.dataflow, params.generation))
            raise ControlError("refused", "it has no camera")
        state = device.take(method, params)
        if fault == "answer lost":
            await self._silence()
        entry[2] = "stored"
        return state

    async def _silence(self):
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                await self.is_cut.wait()
        raise ControlError("deadline", "no answer")


class Desired(Fleet):
    """The desired state without a store. Each started dataflow has one record."""

    def __init__(self, epoch, on_desired):
        super().__init__(None, SimpleNamespace(epoch=epoch, head=None), on_desired)
        self.opened = set()

    def get(self, key):
        if key not in STARTED:
            return None
        generations = [each.generation for r in ROBOTS if (each := self.owner(r, key))]
        enabled = any(each.enabled for r in ROBOTS if (each := self.owner(r, key)))
        return record(
            name=key,
            generation=max(generations, default=0),
            opened=key in self.opened,
            enabled=enabled,
        )


class DeliveryModel(RuleBasedStateMachine):
    """Coordinator and robots; time passes only in steps."""

    def __init__(self):
        super().__init__()
        self.loop = VirtualTime()
        self.devices = {id_: Device(id_) for id_ in ROBOTS}
        self.generation = 10
        self.epoch = 0
        self.task = None
        self.backup = None
        self.lead({}, None)

    def lead(self, desired, restored):
        """Begin a term with this desired state; all robots connect."""
        self.epoch += 1
        self.robots = Robots(
            [Machine(id_, f"10.0.0.{number}") for number, id_ in enumerate(ROBOTS)],
            {},
            lambda robot: self.delivery.mark([robot.id]),
        )
        self.fleet = Desired(self.epoch, lambda robots: self.delivery.mark(robots))
        self.fleet.restored = restored
        self.delivery = Delivery(self.fleet, self.robots, SimpleNamespace(heads={}), None)
        for (robot, name), target in desired.items():
            self.fleet.follow(robot, name, target, 0, None)
        self.task = self.loop.create_task(self.delivery.run())
        for robot in ROBOTS:
            self.connects(robot)

    def run(self, seconds):
        if not seconds:
            return
        self.loop.run_until_complete(asyncio.sleep(seconds))
        assert not self.task.done()

    def desired(self):
        return {
            (robot, name): target
            for robot in ROBOTS
            for name, target in self.fleet.desired(robot).items()
        }

    @rule(robot=st.sampled_from(ROBOTS))
    def connects(self, robot):
        device, known = self.devices[robot], self.robots.get(robot)
        if known.client is not None:
            known.client.is_cut.set()
        known.client, known.away_since = Connection(device, self.loop.time), None
        known.shares, known.releases = dict(device.shares), dict(device.releases)
        known.answers = {}
        self.robots.changed(known)

    @rule(robot=st.sampled_from(ROBOTS))
    def is_cut(self, robot):
        known = self.robots.get(robot)
        if known.client is not None:
            known.client.is_cut.set()
            known.client = None
            self.robots.changed(known)

    @rule(robot=st.sampled_from(ROBOTS))
    def reports(self, robot):
        known, device = self.robots.get(robot), self.devices[robot]
        if known.client is not None:
            known.shares, known.releases = dict(device.shares), dict(device.releases)
            self.robots.changed(known)

    @rule(
        robot=st.sampled_from(ROBOTS),
        fault=st.sampled_from(["", "lost", "answer lost", "full", "refuses"]),
    )
    def behaves(self, robot, fault):
        self.devices[robot].fault = fault

    @rule(name=st.sampled_from(STARTED), enabled=st.booleans(), seconds=WAITS)
    def starts_or_stops(self, name, enabled, seconds=0.0):
        self.generation += 1
        self.fleet.opened.discard(name)
        for robot in ROBOTS:
            target = RobotAssignment(self.generation, enabled=enabled, uuid="u")
            self.fleet.follow(robot, name, target, 0, None)
        self.run(seconds)

    @rule(name=st.sampled_from(STARTED))
    def opens(self, name):
        self.fleet.opened.add(name)
        self.delivery.mark(ROBOTS)

    @rule(
        robot=st.sampled_from(ROBOTS),
        name=st.sampled_from(RELEASED),
        release=st.sampled_from([RELEASE, ""]),
        seconds=WAITS,
    )
    def orders(self, robot, name, release, seconds):
        self.generation += 1
        self.fleet.follow(robot, name, RobotAssignment(self.generation, release=release), 0, None)
        self.run(seconds)

    @rule(seconds=WAITS)
    def time_passes(self, seconds):
        self.run(seconds)

    @rule()
    def backs_up(self):
        self.backup = (self.desired(), self.generation)

    @rule()
    def is_restored(self):
        if self.backup is None:
            return
        for robot in ROBOTS:
            self.is_cut(robot)
        self._end_term()
        desired, generation = self.backup
        self.generation += 1
        self.lead(desired, Restored(generation, self.generation))

    @rule(robot=st.sampled_from(ROBOTS))
    def operator_resumes(self, robot):
        """Overrule what is newer than the store."""
        known, device = self.robots.get(robot), self.devices[robot]
        for name in list(known.conflicts):
            if name in device.shares and self.fleet.owner(robot, name) is None:
                device.shares[name] = share(name, device.shares[name].generation, "stopped")
                self.reports(robot)
            elif self.fleet.owner(robot, name) is not None:
                self.starts_or_stops(name, self.fleet.owner(robot, name).enabled)

    @invariant()
    def nothing_newer_is_touched(self):
        for robot in self.robots.all:
            for name in robot.conflicts:
                target = self.fleet.owner(robot.id, name)
                held = self.devices[robot.id].shares.get(name)
                if robot.client is not None and target is None and held is not None:
                    assert held.status not in FINAL or held.status == "stopped"

    @invariant()
    def nothing_is_sent_twice_unless_unanswered(self):
        for robot in self.robots.all:
            if robot.client is None:
                continue
            answered, last = Counter(), {}
            for key, at, outcome in robot.client.sent:
                assert not answered[key], f"{robot.id}: {key} was answered and sent again"
                if key in last:
                    assert at - last[key] >= RETRY_S, f"{robot.id}: {key} was sent again at once"
                last[key] = at
                answered[key] += outcome != "unanswered"

    def teardown(self):
        """When all is well again, each robot gets what is desired."""
        for robot in ROBOTS:
            self.devices[robot].fault = ""
            if self.robots.get(robot).client is None:
                self.connects(robot)
            self.reports(robot)
        for _ in range(2):
            self.run(COMPARE_S + MAX_RETRY_S + DEADLINE_S)
            for robot in ROBOTS:
                self.reports(robot)
                self.operator_resumes(robot)
        self.run(COMPARE_S + MAX_RETRY_S + DEADLINE_S)
        self.nothing_is_sent_twice_unless_unanswered()
        for (robot, name), target in self.desired().items():
            device, known = self.devices[robot], self.robots.get(robot)
            assert known.conflicts == {}
            assert known.answered("failed") == {}
            if (name, target.generation) in device.refused and name in known.answered("refused"):
                continue
            held = (device.releases if target.is_order else device.shares).get(name)
            if held is None:
                assert not (target.release if target.is_order else target.enabled)
            elif target.is_order:
                assert held.generation >= target.generation
            else:
                assert held.generation == target.generation
                assert held.status != "ready" or name not in self.fleet.opened
            started = {n for n, each in self.fleet.desired(robot).items() if not each.is_order}
            assert device.shares.keys() <= started
        self._end_term()
        self.loop.close()

    def _end_term(self):
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.task)


TestDelivery = pytest.mark.long(DeliveryModel.TestCase)
TestDelivery.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
