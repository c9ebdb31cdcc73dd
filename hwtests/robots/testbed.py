"""The test bed: creates robots, boots them, and removes every trace of them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from hwtests.robots import boot, host, rootfs
from hwtests.robots.errors import RobotError
from hwtests.robots.network import Network
from hwtests.robots.robot import Robot
from hwtests.robots.shell import attempt, wait_until

_numbers = itertools.count(1)
"""A process may have several test beds at once."""


class Testbed:
    """Robots on one network, up to 99. A context manager that removes all of them."""

    __test__ = False

    def __init__(self, *, include: Sequence[str] = (), lower: str = "") -> None:
        """`include`: Debian packages that the robots have besides the usual.

        `lower`: what their disks lie over, from another test bed that stays.
        """
        self._include = include
        self.name = f"dorad-{os.getpid()}-{next(_numbers)}"
        self._folder = host.FOLDER / "beds" / self.name
        self.lower = lower
        """The root file system, and what is installed over it: an overlay's lowerdir."""
        self._layers = 0
        self.network = Network(self.name)
        self.robots: list[Robot] = []

    def __enter__(self) -> Self:
        """Create root file system and switch. Raises RobotError if that is impossible."""
        reason = host.missing()
        if reason:
            raise RobotError(reason)
        with host.alone():
            remove_leftovers()
            if not self.lower:
                self.lower = str(rootfs.build(host.FOLDER, self._include))
        self._folder.mkdir(parents=True)
        try:
            self.network.make()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything."""
        self.down()

    def preinstall(self, deb: Path) -> None:
        """Preinstall a package on all robots created afterwards."""
        self._layers += 1
        self.lower = rootfs.preinstall(self.lower, deb, self._folder / f"layer{self._layers}")

    def up(self, count: int) -> list[Robot]:
        """Create and boot more robots at once, and wait until they are up."""
        added = []
        for _ in range(count):
            number = len(self.robots) + 1
            folder = self._folder / f"robot{number}"
            robot = Robot(self.name, number, self.lower, folder, self.network)
            self.robots.append(robot)
            robot.create()
            robot.switch_on()
            added.append(robot)
        for robot in added:
            robot.wait_until_booted()
        return added

    def down(self) -> None:
        """Kill all robots and remove their disks and networks, also after a failed start."""
        with ExitStack() as stack:
            # Runs in reverse order; each is run even if another fails.
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            stack.callback(boot.remove_cgroup, host.cgroup2() / self.name)
            stack.callback(self.network.remove)
            for robot in self.robots:
                stack.callback(robot.destroy)
            self.robots = []


def remove_leftovers() -> None:
    """Remove the remains of test beds whose process was killed."""
    beds = host.FOLDER / "beds"
    for folder in beds.iterdir() if beds.is_dir() else ():
        if Path("/proc", folder.name.split("-")[1]).exists():
            continue
        group = host.cgroup2() / folder.name
        if group.is_dir():
            (group / "cgroup.kill").write_text("1")
            wait_until(partial(_empty, group), f"{group} is empty")
            boot.remove_cgroup(group)
        for line in attempt(["ip", "netns", "list"]).stdout.splitlines():
            if line.startswith(f"{folder.name}-"):
                attempt(["ip", "netns", "del", line.split()[0]])
        shutil.rmtree(folder, ignore_errors=True)


def _empty(group: Path) -> bool:
    return "populated 0" in (group / "cgroup.events").read_text()
