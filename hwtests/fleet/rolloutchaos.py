"""Rollouts one after another, while robots lose packets, cables and power at random moments."""

import json
import time
from collections.abc import Callable
from random import Random

from hwtests.fleet.enrolled import UNIT
from hwtests.fleet.releasing import CRASH, QUICK, Site
from hwtests.robots import RobotError

RULES = ("--healthy-deadline", "20s", "--confirm-deadline", "20s", "--progress-deadline", "60s")
MAX_ROLLOUT_S = 90.0
"""Then the operator aborts it, or takes its place with another one."""
FAULT_EVERY_S = 4.0
MAX_FAULT_S = 15.0


class RolloutChaos:
    """Starts rollouts, and inflicts faults, in one thread."""

    def __init__(self, site: Site, chance: Random) -> None:
        self._site = site
        self._chance = chance
        self._number = 0
        self._began = 0.0
        """When the present rollout was started."""
        self._abort_at = float("inf")
        self._repairs: dict[str, tuple[float, Callable[[], None]]] = {}
        """When and how each disturbed robot is repaired."""
        self._faults: list[Callable[[str], Callable[[], None] | None]] = [
            self._power, self._power, self._cable, self._silence, self._loss, self._loss,
            self._agent, self._dorad, self._coordinator,
        ]  # fmt: skip
        self.counts: dict[str, int] = {}
        """Faults and rollouts, by kind."""

    def run(self, seconds: float) -> None:
        """Go on for a while, then repair everything and wait until all robots are up."""
        end = time.monotonic() + seconds
        fault = 0.0
        try:
            while time.monotonic() < end:
                self._repair(time.monotonic())
                if time.monotonic() >= fault:
                    self._inflict()
                    fault = time.monotonic() + self._chance.uniform(0, 2 * FAULT_EVERY_S)
                self._operate()
                time.sleep(0.2)
        finally:
            self._repair(float("inf"))
        for robot in self._site.fleet.robots.values():
            robot.wait_until_booted()

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _inflict(self) -> None:
        machine = self._chance.choice([*self._site.fleet.robots])
        if machine in self._repairs:
            return
        fault = self._chance.choice(self._faults)
        repair = fault(machine)
        self._count(fault.__name__.strip("_"))
        if repair is not None:
            due = time.monotonic() + self._chance.uniform(0.5, MAX_FAULT_S)
            self._repairs[machine] = (due, repair)

    def _repair(self, now: float) -> None:
        for machine, (due, repair) in [*self._repairs.items()]:
            if due <= now:
                del self._repairs[machine]
                repair()

    def _power(self, machine: str) -> Callable[[], None]:
        robot = self._site.fleet.robots[machine]
        robot.power_cut()
        return robot.switch_on

    def _cable(self, machine: str) -> Callable[[], None]:
        self._site.fleet.bed.network.cut(self._number_of(machine))
        return self._mend(machine)

    def _silence(self, machine: str) -> Callable[[], None]:
        self._site.fleet.bed.network.silent(self._number_of(machine))
        return self._mend(machine)

    def _loss(self, machine: str) -> Callable[[], None]:
        percent = self._chance.uniform(2, 40)
        self._site.fleet.bed.network.loss(self._number_of(machine), percent)
        return self._mend(machine)

    def _agent(self, machine: str) -> None:
        self._kill(machine, "dorad-agent")

    def _dorad(self, machine: str) -> None:
        self._kill(machine, "dorad")

    def _coordinator(self, _machine: str) -> None:
        # systemd starts it again after a second.
        self._site.fleet.server.attempt("systemctl", "kill", "--signal=KILL", UNIT)

    def _kill(self, machine: str, unit: str) -> None:
        robot = self._site.fleet.robots[machine]
        if robot.leader is not None:
            robot.attempt("systemctl", "kill", "--signal=KILL", unit)

    def _mend(self, machine: str) -> Callable[[], None]:
        number = self._number_of(machine)
        return lambda: self._site.fleet.bed.network.repair(number)

    def _number_of(self, machine: str) -> int:
        return self._site.fleet.robots[machine].number

    def _operate(self) -> None:
        """Start the next rollout when one has ended, or takes too long."""
        followed = self._site.is_followed()
        if followed and time.monotonic() > self._abort_at:
            self._abort_at = float("inf")
            self._count("aborted")
            self._site.fleet.attempt("rollout", "abort")
        late = time.monotonic() - self._began > MAX_ROLLOUT_S
        if followed and not late:
            return
        if followed:
            self._count("stopped following")
            self._site.fleet.server.attempt("systemctl", "stop", "rollout")
        self._began = time.monotonic()
        act = self._chance.choice(("good", "good", "good", "good", "bad", "undo", "abort"))
        try:
            self._act(act)
            self._count(act)
        except RobotError as error:
            # The coordinator was killed, or the rollout can no longer be undone.
            self._count(f"{act}, refused")
            print(error)

    def _act(self, act: str) -> None:
        self._abort_at = float("inf")
        if act == "undo":
            self._site.fleet.dorafleet("rollout", "undo", "--detach")
            self._site.run_in_background("rollout", "follow", *QUICK[:2])
            return
        if act == "abort":
            self._abort_at = time.monotonic() + self._chance.uniform(1, MAX_FAULT_S)
        self._number += 1
        text = f"{CRASH}  # {self._number}" if act == "bad" else f"number = {self._number}"
        release = self._site.build(text)
        words = ("--max-parallel", "50%", "--failure-threshold", "30%", "--supersede")
        self._site.start_in_background(release, *RULES, *words)


def settle(site: Site, timeout: float) -> list[dict[str, object]]:
    """Follow the newest rollout until every robot has a verdict; return all rollouts."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        site.attempt("rollout", "follow", *QUICK[:2])
        states = [each["state"] for each in site.rollout()["robots"]]
        if site.rollout()["summary"]["over"] or set(states) <= {"confirmed", "reverted", "back"}:
            break
        time.sleep(1)
    found = site.rollouts()
    print(
        json.dumps([{key: each[key] for key in ("rollout", "phase", "counts")} for each in found])
    )
    return found
