"""The fleet of the demonstration: a coordinator, robots with their agents, and an operator."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hwtests.bench.process import MeasurementError
from hwtests.demo.networks import RobotNetwork
from hwtests.localrobots.robot import LocalRobot

EXAMPLE = Path(__file__).parents[2] / "docs/examples/fleet"
NAMES = ("scout", "worker", "base")
ZENOH_PORT = 5456
COMMAND_S = 60.0
WAIT_S = 30.0

DORA = ("-m", "dorad.cli")
DORAFLEET = ("-m", "dorafleet.cli")
AGENT = ("-m", "dorad.agent.main")


class Fleet:
    """Everything that runs. `end` leaves nothing behind."""

    def __init__(self, folder: Path, network: RobotNetwork) -> None:
        self.network = network
        self.folder = folder / "example"
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns("out"))
        self.cluster = folder / "cluster.yml"
        self.cluster.write_text(_cluster(network))
        self.operator = LocalRobot("operator", folder / "o", network.enter(0))
        self.robots = {
            name: LocalRobot(name, folder / name[0], network.enter(number))
            for number, name in enumerate(NAMES, 1)
        }

    def start_coordinator(self) -> None:
        """Start the coordinator, and wait until it answers."""
        words = [*DORAFLEET, "serve", str(self.cluster), "--tls"]
        coordinator = self.operator.begin(sys.executable, *words, "--listen", self.network.listen)
        self.wait(
            lambda: " ready at " in self.operator.tail() or coordinator.poll() is not None,
            "the coordinator is ready",
        )

    def start_robots(self) -> None:
        """Start the daemon of each robot, and enrol the robot with a token."""
        for name, robot in self.robots.items():
            robot.start()
            printed = self.dorafleet("enrol", str(self.cluster), name, "--token")
            command, token = printed.splitlines()
            words = command.split("dorad-agent ", 1)[1].split()
            self._run(robot, *AGENT, *words[: words.index("&&")], given=token)
            robot.begin(sys.executable, *AGENT, "run", "--socket", str(robot.socket))

    def connected(self) -> bool:
        """Return True if every robot says that it is connected."""
        done = [self._attempt(each, *AGENT, "status") for each in self.robots.values()]
        return not any(each.returncode for each in done)

    def dora(self, *words: str) -> str:
        """Run a `dora` command of the operator, which talks to the coordinator."""
        there = ("--coordinator-addr", "127.0.0.1")
        return self._run(self.operator, *DORA, *words, *there)

    def dorafleet(self, *words: str) -> str:
        """Run a `dorafleet` command of the operator."""
        return self._run(self.operator, *DORAFLEET, *words)

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
        machines = (self.operator, *self.robots.values())
        return "\n".join(f"--- {each.name}\n{each.tail()}" for each in machines)

    def end(self) -> None:
        """End everything."""
        for robot in (*self.robots.values(), self.operator):
            robot.end()

    def _run(self, robot: LocalRobot, *words: str, given: str = "") -> str:
        done = self._attempt(robot, *words, given=given)
        if done.returncode:
            command = " ".join(words)
            raise MeasurementError(
                f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}"
            )
        return done.stdout

    def _attempt(
        self, robot: LocalRobot, *words: str, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*robot.enter, sys.executable, *words],
                env=robot.env,
                cwd=robot.folder,
                input=given,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            command = " ".join(words)
            message = f"{command}: not done after {COMMAND_S:g} s\n{self.logs()}"
            raise MeasurementError(message) from None


def _cluster(network: RobotNetwork) -> str:
    """Return the example's cluster with the addresses of these robots."""
    text = (EXAMPLE / "cluster.yml").read_text()
    for number in range(1, len(NAMES) + 1):
        # Links listen at all addresses, so robots of one namespace need their own ports.
        there = f"host: {network.address(number)}\n    zenoh_port: {ZENOH_PORT + number}\n"
        text = text.replace(f"host: 10.0.0.{10 + number}\n", there)
    return text.replace("addr: 10.0.0.1\n", f"addr: {network.address(0)}\n")
