"""Send files of releases to robots that wait for them, while no client of the rollout does.

So a robot that was off during its rollout gets its files without a command.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from dorad.problems import ProblemError
from dorafleet.rollout.model import FORWARD
from dorafleet.rollout.verdicts import needs_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.rolloutdriver import RolloutDriver
    from dorafleet.coordinator.rollouts import Rollouts
    from dorafleet.inventory.model import Machine

EVERY_S = 2.0
"""Seconds between two checks of robots that wait for files."""
AFTER_S = 10.0
"""Seconds that a robot waits for a client's files before it gets them from here."""
AT_ONCE = 10
"""Transfers at the same time."""
RETRY_S = 30.0
MAX_RETRY_S = 900.0
"""Seconds from a transfer that has failed to the next one: the first, and the longest."""
CHECK_S = 30.0
"""Seconds between two checks of the files of a release."""
SENT_S = 15.0
"""A robot needs some seconds to see that it has everything."""

_log = logging.getLogger(__name__)


class Supply(Protocol):
    """The files of releases on this machine. See `dorafleet.release.supply`."""

    def trouble(self, release: str) -> str:
        """Return why a release cannot be sent from here; empty if it can."""

    async def send(self, release: str, machine: Machine) -> object:
        """Send a machine what it lacks of a release. Raises ProblemError."""


@dataclass(slots=True)
class _Wait:
    """A robot that waits for the files of a rollout."""

    since: float
    due: float
    """When a transfer to it may begin, on the monotonic clock."""
    failures: int = 0
    text: str = ""
    """For people."""
    task: asyncio.Task[None] | None = None


class Supplying:
    """Sends files to waiting robots, and explains why a robot does not get its files."""

    def __init__(
        self, supply: Supply | None, robots: Robots, rollouts: Rollouts, driver: RolloutDriver
    ) -> None:
        """`supply` is None if nothing is sent from this machine."""
        self._supply = supply
        self._robots = robots
        self._rollouts = rollouts
        self._driver = driver
        self._waits: dict[tuple[int, str], _Wait] = {}
        self._clients: Counter[int] = Counter()
        self._troubles: dict[str, tuple[float, str]] = {}
        """By release: when it was checked, and why it cannot be sent from here."""

    @contextmanager
    def left_to_client(self, number: int) -> Iterator[None]:
        """Send no files of a rollout in this block: a client sends them."""
        self._clients[number] += 1
        try:
            yield
        finally:
            self._clients[number] -= 1

    def text(self, number: int, robot: str) -> str:
        """Return the state of the files that a robot waits for, as text."""
        wait = self._waits.get((number, robot))
        return "" if wait is None else wait.text

    async def run(self) -> NoReturn:
        """Send until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(EVERY_S)
        finally:
            tasks = [wait.task for wait in self._waits.values() if wait.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Begin the transfers that are due."""
        now = time.monotonic()
        waiting: dict[tuple[int, str], str] = {}
        for rollout in self._rollouts.open:
            if rollout.phase in FORWARD:
                view = self._driver.view(rollout, self._rollouts.known_members(rollout.number))
                waiting |= {
                    (rollout.number, id_): rollout.release
                    for id_, member in view.members.items()
                    if needs_files(member, view.seen[id_])
                }
        for key in self._waits.keys() - waiting.keys():
            if self._waits[key].task is None:
                del self._waits[key]
        self._troubles = {
            release: each for release, each in self._troubles.items() if release in waiting.values()
        }
        troubles = {release: await self._trouble(release) for release in set(waiting.values())}
        for key, release in waiting.items():
            wait = self._waits.setdefault(key, _Wait(now, now + AFTER_S))
            if wait.task is not None:
                continue
            if self._clients[key[0]]:
                wait.text = ""
            elif trouble := troubles[release]:
                wait.text = (
                    f"the coordinator cannot send its files: {trouble}; `dorafleet rollout follow "
                    f"{key[0]}` sends them from where it was built"
                )
            elif now >= wait.due and self._running < AT_ONCE:
                wait.text = "the coordinator sends its files"
                wait.task = asyncio.create_task(self._send(key, release), name=f"files {key[1]}")
            elif not wait.failures:
                wait.text = "the coordinator will send its files"

    @property
    def _running(self) -> int:
        return sum(wait.task is not None for wait in self._waits.values())

    async def _trouble(self, release: str) -> str:
        """Return why a release cannot be sent from here."""
        if self._supply is None:
            return "it sends none"
        at, text = self._troubles.get(release, (float("-inf"), ""))
        if time.monotonic() - at >= CHECK_S:
            text = await asyncio.to_thread(self._supply.trouble, release)
            self._troubles[release] = (time.monotonic(), text)
            _log.debug("release %.12s: %s", release, text or "its files are here")
        return text

    async def _send(self, key: tuple[int, str], release: str) -> None:
        assert self._supply is not None
        number, robot = key
        wait = self._waits[key]
        _log.info("rollout %d: robot `%s` gets its files from here", number, robot)
        try:
            sent = await self._supply.send(release, self._robots.get(robot).machine)
        except (ProblemError, OSError) as error:  # OSError: of the disk here
            _log.warning("rollout %d: no files for `%s`: %s", number, robot, error)
            seconds = min(MAX_RETRY_S, RETRY_S * 2 ** min(wait.failures, 10))
            wait.failures += 1
            wait.due = time.monotonic() + seconds
            wait.text = f"the coordinator cannot send its files: {error}; again in {seconds:.0f} s"
            if isinstance(error, ProblemError) and error.code == "refused":
                await self._refuse(number, robot, str(error))
        else:
            _log.info("rollout %d: robot `%s` has its files: %s", number, robot, sent)
            wait.due = time.monotonic() + SENT_S
            wait.text = "it has its files"
        finally:
            wait.task = None

    async def _refuse(self, number: int, robot: str, reason: str) -> None:
        try:
            await self._driver.refuse(number, robot, reason)
        except ProblemError as error:
            _log.warning("rollout %d: the refusal of `%s` is not kept: %s", number, robot, error)
