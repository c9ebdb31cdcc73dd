"""The fleet of the demonstration: a coordinator, robots with their agents, and an operator."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwtests.bench.process import MeasurementError
from hwtests.localrobots.robot import LocalRobot

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwtests.demo.places import Places

EXAMPLE = Path(__file__).parents[2] / "docs/examples/fleet"
NAMES = ("scout", "worker", "base")
PORT = 6013
COMMAND_S = 40.0
WAIT_S = 30.0

DORA = ("-m", "dorad.cli")
DORAFLEET = ("-m", "dorafleet.cli")
AGENT = ("-m", "dorad.agent.main")


class Fleet:
    """Everything that runs. `end` leaves nothing behind."""

    def __init__(self, folder: Path, places: Places) -> None:
        self.places = places
        self.cluster = folder / "cluster.yml"
        self.cluster.write_text(_cluster(places))
        self.operator = LocalRobot("operator", folder / "o", places.enter(0))
        self.robots = {
            name: LocalRobot(name, folder / name[0], places.enter(number))
            for number, name in enumerate(NAMES, 1)
        }

    def start_coordinator(self) -> None:
        """Start the coordinator, and wait until it answers."""
        words = [*DORAFLEET, "serve", str(self.cluster), "--tls"]
        coordinator = self.operator.begin(sys.executable, *words, "--listen", self.places.listen)
        self.wait(
            lambda: " ready at " in self.operator.tail() or coordinator.poll() is not None,
            "the coordinator is ready",
        )

    def start_robots(self) -> None:
        """Start the daemon of each robot, and enrol the robot with a token."""
        for name, robot in self.robots.items():
            robot.start()
            printed = self.dorafleet("enrol", str(self.cluster), name, "--token")
            words = printed.split("dorad-agent ", 1)[1].split()
            join = words[: words.index("&&")] if "&&" in words else words
            self._run(robot, *AGENT, *join)
            robot.begin(sys.executable, *AGENT, "run", "--socket", str(robot.socket))

    def connected(self) -> int:
        """Return how many robots are connected."""
        listed = json.loads(self.dorafleet("status", str(self.cluster), "--json", check=False))
        return sum(each.get("state") == "connected" for each in _robots(listed))

    def dora(self, *words: str, check: bool = True) -> str:
        """Run a `dora` command of the operator, which talks to the coordinator."""
        there = ("--coordinator-addr", "127.0.0.1")
        return self._run(self.operator, *DORA, *words, *there, check=check)

    def dorafleet(self, *words: str, check: bool = True) -> str:
        """Run a `dorafleet` command of the operator."""
        return self._run(self.operator, *DORAFLEET, *words, check=check)

    def wait(
        self, holds: Callable[[], object], what: str, timeout: float = WAIT_S, every: float = 0.05
    ) -> float:
        """Wait for a condition; return how long it took.

        Raises:
            MeasurementError: it does not hold in time.
        """
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > timeout:
                raise MeasurementError(f"after {timeout:g} s still not: {what}\n{self.logs()}")
            time.sleep(every)
        return time.monotonic() - began

    def logs(self) -> str:
        """Return the ends of all logs."""
        everybody = (self.operator, *self.robots.values())
        return "\n".join(f"--- {each.name}\n{each.tail()}" for each in everybody)

    def end(self) -> None:
        """End everything."""
        for robot in (*self.robots.values(), self.operator):
            robot.end()

    def _run(self, robot: LocalRobot, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [*robot.enter, sys.executable, *words],
            env=robot.env,
            cwd=robot.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if check and done.returncode:
            command = " ".join(words)
            raise MeasurementError(
                f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}"
            )
        return done.stdout


def _cluster(places: Places) -> str:
    """Return the example's cluster with the addresses of these robots."""
    text = (EXAMPLE / "cluster.yml").read_text()
    for number in (*range(1, len(NAMES) + 1), 0):
        given = f"10.0.0.{10 + number if number else 1}"
        text = re.sub(rf"{re.escape(given)}(?!\d)", places.address(number), text)
    return text


def _robots(listed: Any) -> list[dict[str, Any]]:
    return listed["robots"] if isinstance(listed, dict) else listed
