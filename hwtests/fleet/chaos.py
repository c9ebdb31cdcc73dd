"""Faults at random moments, by weight, and a record of what was done."""

import time
from collections.abc import Callable, Iterable
from random import Random

from dorad.dataflow.model import LINK
from hwtests.fleet.enrolled import UNIT, EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.robots import RobotError, clock


class Chaos:
    """Inflicts faults on a fleet. Belongs to one thread."""

    def __init__(self, robots: EnrolledFleet, chance: Random, with_links: Iterable[Flow]) -> None:
        """Only the links of `with_links` are killed."""
        self._robots = robots
        self._chance = chance
        self._with_links = [*with_links]
        self._repairs: dict[str, float] = {}
        """When the cable of each robot that is cut is repaired."""
        self.killed: set[tuple[str, int]] = set()
        """Link processes that were killed, by robot and pid."""
        self.counts: dict[str, int] = {}
        self._faults: dict[Callable[[str], bool], int] = {
            self._kill_coordinator: 2,
            self._kill_agent: 3,
            self._kill_dorad: 3,
            self._kill_link: 3,
            self._cut: 3,
            self._step_clock: 3,
        }

    def run(self, seconds: float) -> None:
        """Inflict faults for a while, then repair all cables. Clocks stay wrong."""
        try:
            self._inflict(time.monotonic() + seconds)
        finally:
            for machine in [*self._repairs]:
                self._repair(machine)

    def _inflict(self, end: float) -> None:
        while time.monotonic() < end:
            for machine in [each for each, due in self._repairs.items() if due < time.monotonic()]:
                self._repair(machine)
            ((fault, _),) = self._chance.choices([*self._faults.items()], [*self._faults.values()])
            machine = self._chance.choice([*self._robots.robots])
            if fault(machine):
                name = fault.__name__.strip("_")
                self.counts[name] = self.counts.get(name, 0) + 1
            time.sleep(self._chance.uniform(0, 1.5))

    def _kill_coordinator(self, _machine: str) -> bool:
        # systemd starts it again after a second.
        self._robots.server.attempt("systemctl", "kill", "--signal=KILL", UNIT)
        return True

    def _kill_agent(self, machine: str) -> bool:
        return self._kill_service(machine, "dorad-agent")

    def _kill_dorad(self, machine: str) -> bool:
        return self._kill_service(machine, "dorad")

    def _kill_service(self, machine: str, unit: str) -> bool:
        robot = self._robots.robots[machine]
        return robot.attempt("systemctl", "kill", "--signal=KILL", unit).returncode == 0

    def _kill_link(self, machine: str) -> bool:
        flow = self._chance.choice(self._with_links)
        try:
            pid = self._robots.pids(flow)[machine].get(LINK)
        except (RobotError, ValueError):
            return False
        if not pid:
            return False
        self._robots.robots[machine].attempt("kill", "-KILL", str(pid))
        self.killed.add((machine, pid))
        return True

    def _cut(self, machine: str) -> bool:
        if machine in self._repairs:
            return False
        network = self._robots.bed.network
        number = self._robots.robots[machine].number
        self._chance.choice((network.cut, network.silent))(number)
        self._repairs[machine] = time.monotonic() + self._chance.uniform(0.1, 8)
        return True

    def _repair(self, machine: str) -> None:
        self._robots.bed.network.repair(self._robots.robots[machine].number)
        del self._repairs[machine]

    def _step_clock(self, machine: str) -> bool:
        if not self._robots.clocks:
            return False
        seconds = self._chance.choice((-1, 1)) * 10 ** self._chance.uniform(0, 8)
        clock.shift(self._robots.robots[machine], seconds)
        return True
