"""A fleet that loses its coordinator comes back: the rules of both sides, in simulated time.

The gate's line and its victims, and the agent's pauses and timeouts, are the real ones. Handshakes
share one processor, which is what limits a coordinator of thousands of robots.
"""

import heapq
import random
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from dorad import jitter
from dorad.agent.backoff import Backoff, HandshakeTimeout, fleet_backoff
from dorafleet.coordinator.connections import pause_of
from dorafleet.coordinator.gate import (
    LOOK_S,
    MAX_HANDSHAKES,
    Line,
    Pending,
    victims,
)

ROBOTS = 5000
CPU_S = 0.008
"""Of a processor, for a handshake with certificates and for attaching."""
BACK_S = 60.0
LIMIT_S = 600.0


class Outcome(NamedTuple):
    seconds: float
    """Until the last robot has attached; `LIMIT_S` if not all have."""
    tries: int
    most: int
    """Handshakes at a time."""


class Impatient(HandshakeTimeout):
    """Never waits longer than at first."""

    def expired(self) -> None:
        pass


@dataclass
class Robot:
    host: str
    backoff: Backoff
    allowed: HandshakeTimeout
    tries: int = 0
    waits: bool = False
    """Whether it waits for the coordinator."""


@dataclass
class Storm:
    """All robots try at once. `ask` is the pause that the coordinator has told them before."""

    ask: float = pause_of(ROBOTS)
    handshakes: int = MAX_HANDSHAKES
    timeout: type[HandshakeTimeout] = HandshakeTimeout
    hosts: int = ROBOTS
    now: float = 0.0
    line: Line[tuple[int, int]] = field(default_factory=Line)
    """Number and try of each robot that waits for its handshake."""
    pending: dict[tuple[int, int], Pending] = field(default_factory=dict)
    ends: dict[tuple[int, int], float] = field(default_factory=dict)
    """When each handshake is done, by the work that each of them has got until then; the first one
    is done first."""
    work: float = 0.0
    dials: list[tuple[float, int]] = field(default_factory=list)
    """When each robot tries next."""
    expiries: list[tuple[float, int, int]] = field(default_factory=list)
    """When each robot gives a try up, with the number of that try."""

    def __post_init__(self) -> None:
        self.robots = [
            Robot(f"host{number % self.hosts}", fleet_backoff(self.ask), self.timeout())
            for number in range(ROBOTS)
        ]

    def run(self) -> Outcome:
        for number, robot in enumerate(self.robots):
            heapq.heappush(self.dials, (robot.backoff.next(), number))
        missing, most, look = ROBOTS, 0, LOOK_S
        while missing and self.now < LIMIT_S:
            done = next(iter(self.ends), None)
            left = 0.0 if done is None else (self.ends[done] - self.work) * len(self.ends)
            times = [look, *(each[0][0] for each in (self.dials, self.expiries) if each)]
            at = min(times) if done is None else min(*times, self.now + left)
            if self.ends:
                self.work += (at - self.now) / len(self.ends)
            self.now = at
            if done is not None and self.work >= self.ends[done] - 1e-9:
                self.leave(done)
                self.robots[done[0]].waits = False
                missing -= 1
            elif at == look:
                look += LOOK_S
                self.evict()
            elif self.dials and at == self.dials[0][0]:
                self.dial(heapq.heappop(self.dials)[1])
            else:
                _, number, attempt = heapq.heappop(self.expiries)
                if self.robots[number].waits and self.robots[number].tries == attempt:
                    self.give_up(number, attempt)
            self.fill()
            most = max(most, len(self.pending))
        tries = sum(robot.tries for robot in self.robots)
        return Outcome(LIMIT_S if missing else self.now, tries, most)

    def dial(self, number: int) -> None:
        robot = self.robots[number]
        robot.tries += 1
        robot.waits = True
        item = (number, robot.tries)
        self.line.add(robot.host, item, self.now)
        self.line.spoke(robot.host, item)
        expires = self.now + robot.allowed.seconds(self.ask)
        heapq.heappush(self.expiries, (expires, number, robot.tries))

    def give_up(self, number: int, attempt: int) -> None:
        robot = self.robots[number]
        self.leave((number, attempt))
        robot.waits = False
        robot.allowed.expired()
        pause = robot.allowed.pause
        delay = max(robot.backoff.next(), jitter.between(pause / 4, pause))
        heapq.heappush(self.dials, (self.now + delay, number))

    def leave(self, item: tuple[int, int]) -> None:
        self.pending.pop(item, None)
        self.ends.pop(item, None)

    def evict(self) -> None:
        if len(self.pending) < self.handshakes:
            return
        for victim in victims(self.pending, self.line.hosts, self.now):
            self.give_up(*victim)

    def fill(self) -> None:
        while len(self.pending) < self.handshakes:
            item = self.line.take()
            if item is None:
                return
            robot = self.robots[item[0]]
            if robot.waits and robot.tries == item[1]:  # it has not hung up
                self.pending[item] = Pending(robot.host, self.now)
                self.ends[item] = self.work + CPU_S


@pytest.fixture(autouse=True)
def same_chance(monkeypatch):
    monkeypatch.setattr(jitter, "_RANDOM", random.Random(7))


@pytest.mark.parametrize("hosts", [ROBOTS, 1], ids=["own addresses", "one address"])
def test_five_thousand_robots_are_back_within_a_minute_and_try_twice_at_most(hosts):
    found = Storm(hosts=hosts).run()
    assert found.seconds < BACK_S
    assert found.tries <= 2 * ROBOTS
    assert found.most <= MAX_HANDSHAKES


WITHOUT = {
    "a bound of handshakes": {"handshakes": ROBOTS},
    "a pause that the coordinator tells": {"ask": 0.0},
    "more patience after each try": {"ask": 0.0, "timeout": Impatient},
}


@pytest.mark.parametrize("what", WITHOUT)
def test_each_rule_is_needed(what):
    usual, found = Storm().run(), Storm(**WITHOUT[what]).run()
    assert found.seconds > BACK_S or found.tries > 1.3 * usual.tries


def test_the_pause_grows_with_the_fleet():
    assert [pause_of(robots) for robots in (0, 1, 1000, ROBOTS)] == [0.0, 0.005, 5.0, 25.0]
