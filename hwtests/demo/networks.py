"""Where the robots of the demonstration are, and how a robot is cut off."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import psutil

from hwtests.localrobots.robot import LocalRobot
from hwtests.robots.network import Network, address
from hwtests.robots.shell import attempt


class RobotNetwork(Protocol):
    """An address for each robot, from 1, and for the operator, 0."""

    description: str
    listen: str
    """Where the coordinator listens."""

    def address(self, number: int) -> str:
        """Return the address of a robot."""

    def enter(self, number: int) -> Sequence[str]:
        """Return what precedes commands that run there."""

    def cut(self, number: int, robot: LocalRobot) -> None:
        """Cut a robot off from the others."""

    def heal(self, number: int, robot: LocalRobot) -> None:
        """Undo `cut`."""


class Namespaces:
    """Network namespaces with a cable each to one switch; for root."""

    description = "three network namespaces on a switch"
    listen = "0.0.0.0"  # of its own namespace

    def __init__(self, network: Network) -> None:
        self._network = network

    def address(self, number: int) -> str:
        """Return the address of a robot."""
        return address(number)

    def enter(self, number: int) -> Sequence[str]:
        """Return what precedes commands that run there."""
        return ("ip", "netns", "exec", self._network.namespace(number))

    def cut(self, number: int, robot: LocalRobot) -> None:
        """Unplug its cable."""
        self._network.cut(number)

    def heal(self, number: int, robot: LocalRobot) -> None:
        """Plug it in again."""
        self._network.repair(number)


class Loopback:
    """Addresses of loopback. There is no cable: a robot is cut off by stopping its link process."""

    description = "three addresses of loopback (as root: network namespaces)"
    listen = "127.0.0.1"

    def address(self, number: int) -> str:
        """Return the address of a robot."""
        return f"127.0.0.{10 + number if number else 1}"

    def enter(self, number: int) -> Sequence[str]:
        """Return what precedes commands that run there."""
        return ()

    def cut(self, number: int, robot: LocalRobot) -> None:
        """Stop its link processes."""
        for link in robot.links():
            link.suspend()

    def heal(self, number: int, robot: LocalRobot) -> None:
        """Let them go on."""
        for link in robot.links():
            with suppress(psutil.NoSuchProcess):
                link.resume()


@contextmanager
def robot_network(robots: int, *, loopback: bool = False) -> Iterator[RobotNetwork]:
    """Yield namespaces where they are possible, else addresses of `loopback`."""
    if loopback or not _namespaces_possible():
        yield Loopback()
        return
    network = Network(f"demo-{os.getpid()}")
    try:
        network.make()
        for number in range(1, robots + 1):
            network.plug(number)
        yield Namespaces(network)
    finally:
        network.remove()


def _namespaces_possible() -> bool:
    if os.geteuid() or any(shutil.which(each) is None for each in ("ip", "bridge")):
        return False
    name = f"demo-{os.getpid()}-probe"
    possible = attempt(["ip", "netns", "add", name]).returncode == 0
    attempt(["ip", "netns", "del", name])
    return possible
