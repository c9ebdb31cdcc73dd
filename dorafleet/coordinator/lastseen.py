"""What robots reported last, in the store, for the next coordinator: who was seen, when and how.

`last-seen` has the time of the last report of each robot, `last-states/<robot>` what it reported.
They are measured, not decided. Only what people see is read from them: a robot that is away has
its last state in `status`, and nothing is decided by it.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NoReturn, TypeVar

import msgspec

from dorad.control.messages.agent import Attached, ShareState
from dorad.control.messages.releases import ReleaseState
from dorafleet.coordinator.place import Clone, Origin
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.writer import MeasuredWriter, Writer, transactions
from dorafleet.store.model import Store

PREFIX = "last-states/"
TIMES = "last-seen"

EVERY_S = 2.0
"""Time between two checks what is to be stored."""
ROBOT_S = 30.0
"""Minimum time between two writes of one robot: one that changes all the time fills no store."""
TIMES_S = 60.0
"""Time between two writes of when robots reported: they all do all the time."""
MAX_STATES = 64 << 10
"""Bytes of the shares that are stored of one robot, and of the releases."""

NOT_BACK = "it has not come back since the coordinator was started"

T = TypeVar("T", ShareState, ReleaseState)

_log = logging.getLogger(__name__)


class LastState(msgspec.Struct):
    """What one robot reported last."""

    attached: Attached
    """Without shares and releases."""
    shares: list[ShareState]
    releases: list[ReleaseState]
    origin: Origin | None
    """The machine that has its place."""
    clones: list[Clone]
    """Machines that were refused."""
    former: Origin | None = None
    """The machine that had the place before."""


class LastSeen:
    """Keeps in the store what is known of each robot."""

    def __init__(self, store: Store, writer: Writer, robots: Robots) -> None:
        self._store = store
        self._robots = robots
        self._stored: dict[str, bytes] = {}
        """What the store has of each robot."""
        self._written: dict[str, float] = {}
        """When it was written, on the monotonic clock."""
        self._dirty: set[str] = set()
        self._times: dict[str, float] = {}
        self._times_due = 0.0
        self._measured = MeasuredWriter(writer, "the states of robots are not stored")

    async def load(self, ever_seen: Collection[str]) -> None:
        """Tell the robots what the coordinator before has known of them.

        Of robots in `ever_seen` an earlier version has stored only that they had connected.

        Raises:
            StoreError: the store cannot be read.
        """
        times = await read(self._store, TIMES, dict[str, float])
        self._times = next((value for entry, value in times if entry.key == TIMES), {})
        for entry, state in await read(self._store, PREFIX, LastState):
            id_ = entry.key.removeprefix(PREFIX)
            robot = self._robots.find(id_)
            if robot is not None:
                self._stored[id_] = entry.value
                _restore(robot, state)
        for robot in self._robots.all:
            robot.seen_at = self._times.get(robot.id)
            robot.was_seen = robot.attached is not None or robot.id in ever_seen
            if robot.was_seen:
                robot.reason = NOT_BACK

    def forget(self, id_: str) -> None:
        """Forget a robot that has left the fleet, and whose key was deleted."""
        self._stored.pop(id_, None)
        self._written.pop(id_, None)
        self._dirty.discard(id_)

    def mark(self, robot: Robot) -> None:
        """Record that something new is known of a robot."""
        self._dirty.add(robot.id)

    async def run(self) -> NoReturn:
        """Store what changes until cancelled, then what has changed last."""
        try:
            while True:
                await self.keep()
                await asyncio.sleep(EVERY_S)
        finally:
            # The next coordinator knows what this one knew, unless it is killed.
            self._written.clear()
            self._times_due = 0.0
            self._measured.failed = True  # reported no more: another coordinator may lead already
            await self.keep()

    async def keep(self) -> None:
        """Store what has changed, within the limits of time."""
        for puts in transactions([(PREFIX + id_, value) for id_, value in self._changed()]):
            values = {key.removeprefix(PREFIX): value for key, value in puts.items()}
            # Before the write: what changes meanwhile is to be written, too.
            self._dirty -= values.keys()
            if not await self._measured.put(puts):
                self._dirty |= values.keys()
                return
            # One that was removed meanwhile may come back as another robot.
            values = {id_: value for id_, value in values.items() if self._robots.find(id_)}
            self._stored |= values
            self._written |= dict.fromkeys(values, time.monotonic())
        times = {each.id: each.seen_at for each in self._robots.all if each.seen_at is not None}
        if times != self._times and time.monotonic() >= self._times_due:
            self._times_due = time.monotonic() + TIMES_S
            if await self._measured.put({TIMES: msgspec.json.encode(times)}):
                self._times = times

    def _changed(self) -> Iterator[tuple[str, bytes]]:
        """Yield the robots to be stored now, each with its state."""
        for id_ in sorted(self._dirty):
            if time.monotonic() < self._written.get(id_, float("-inf")) + ROBOT_S:
                continue
            robot = self._robots.find(id_)
            state = None if robot is None else last_state(robot)
            value = b"" if state is None else msgspec.json.encode(state)
            if state is None or value == self._stored.get(id_):
                self._dirty.discard(id_)
            else:
                yield id_, value


def last_state(robot: Robot) -> LastState | None:
    """Return what is stored of a robot, None if it has never connected."""
    if robot.attached is None:
        return None
    return LastState(
        # The times and heads of each greeting differ, and say nothing later.
        msgspec.structs.replace(robot.attached, time=0.0, audit="", epoch=0),
        _beginning(robot.known_shares, MAX_STATES),
        _beginning(robot.known_releases, MAX_STATES),
        robot.origin,
        robot.clones,
        robot.former,
    )


def _beginning(states: Iterable[T], limit: int) -> list[T]:
    """Return the first of these states, together not more than `limit` bytes."""
    kept: list[T] = []
    for state in states:
        limit -= len(msgspec.json.encode(state))
        if limit < 0:
            _log.debug("only the first %d states of a robot are stored", len(kept))
            break
        kept.append(state)
    return kept


def _restore(robot: Robot, state: LastState) -> None:
    robot.attached = state.attached
    robot.earlier = (state.shares, state.releases)
    robot.origin, robot.clones, robot.former = state.origin, state.clones, state.former
