"""Send files of releases to robots that wait for them, while no client of the rollout does.

So a robot that was off during its rollout gets its files without a command.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

from websockets.asyncio.connection import Connection

from dorad.control.errors import ControlError
from dorad.problems import ProblemError
from dorafleet.coordinator.fileconnections import FileConnections
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rolloutdriver import RolloutDriver
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.inventory.model import Machine
from dorafleet.rollout.model import FORWARD
from dorafleet.rollout.verdicts import needs_files

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

BESIDE_S = 30.0
"""Seconds after which a robot that waits for a client's files is checked for SSH from here."""
PROBE_S = 5.0
"""Seconds for a connection to a robot's sshd."""

SSH_AGAIN_S = 3600.0
"""Seconds after which SSH is tried again for a robot that it did not reach."""

SSH_PORT = 22

OWN_WAY = "a connection that the robot opens"

_NO_SSH = frozenset({"unreachable", "host_key_unknown", "denied", "config"})
"""Errors with which SSH has reached no robot. A key that has changed is not among them: somebody
should look at that."""

_log = logging.getLogger(__name__)


class Supply(Protocol):
    """The files of releases on this machine. See `dorafleet.release.supply`."""

    def trouble(self, release: str) -> str:
        """Return why a release cannot be sent from here; empty if it can."""

    async def send(
        self,
        release: str,
        machine: Machine,
        on_progress: Callable[[Any], object] = lambda _: None,
        connect: Callable[[str], AbstractAsyncContextManager[Connection]] | None = None,
    ) -> object:
        """Send a machine what it lacks of a release: over SSH, or a connection of `connect`.

        `on_progress` gets objects with `done` and `total` in bytes. Raises ProblemError.
        """


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


class ReleaseSupply:
    """Sends files to waiting robots, and explains why a robot does not get its files."""

    def __init__(
        self,
        supply: Supply | None,
        robots: Robots,
        rollouts: Rollouts,
        driver: RolloutDriver,
        files: FileConnections,
        elsewhere: Callable[[str], str] = lambda _: "",
    ) -> None:
        """`supply` is None if nothing is sent from this machine.

        `elsewhere` returns the coordinator's machine to which a release was uploaded, if it is not
        this one.
        """
        self._supply = supply
        self._elsewhere = elsewhere
        self._files = files
        self._beyond: dict[str, tuple[float, str]] = {}
        """Robots that SSH does not reach: when that was tried on the monotonic clock, and why."""
        self._robots = robots
        self._rollouts = rollouts
        self._driver = driver
        self._waits: dict[tuple[int, str], _Wait] = {}
        self._clients: list[tuple[int, Collection[str]]] = []
        """Clients that send files: of which rollout, and the robots that they do not reach."""
        self._troubles: dict[str, tuple[float, str]] = {}
        """By release: when it was checked, and why it cannot be sent from here."""

    @contextmanager
    def left_to_client(self, number: int, beyond: Collection[str] = ()) -> Iterator[None]:
        """Send no files of a rollout in this block: a client sends them, but not to `beyond`."""
        client = (number, beyond)
        self._clients.append(client)
        try:
            yield
        finally:
            self._clients.remove(client)

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
        self._beyond = {
            id_: since for id_, since in self._beyond.items() if self._robots.find(id_) is not None
        }
        for key in self._waits.keys() - waiting.keys():
            if self._waits[key].task is None:
                del self._waits[key]
        self._troubles = {
            release: each for release, each in self._troubles.items() if release in waiting.values()
        }
        troubles = {release: await self.known_trouble(release) for release in set(waiting.values())}
        for key, release in waiting.items():
            wait = self._waits.setdefault(key, _Wait(now, now + AFTER_S))
            if wait.task is not None:
                continue
            beside = any(n == key[0] and key[1] not in beyond for n, beyond in self._clients)
            if beside and (now < wait.since + BESIDE_S or troubles[release]):
                wait.text = ""
            elif trouble := troubles[release]:
                wait.text = (
                    f"the coordinator cannot send its files: {trouble}; `dorafleet rollout follow "
                    f"{key[0]}` sends them from where it was built, `dorafleet release upload "
                    f"{release[:12]}` leaves them with the coordinator"
                )
            elif now >= wait.due and self._running < AT_ONCE:
                wait.text = "" if beside else "the coordinator sends its files"
                sending = self._send(key, release, beside=beside)
                wait.task = asyncio.create_task(sending, name=f"files {key[1]}")
            elif not wait.failures:
                wait.text = "the coordinator will send its files"

    @property
    def _running(self) -> int:
        return sum(wait.task is not None for wait in self._waits.values())

    def trouble(self, release: str) -> str:
        """Return why a release cannot be sent from here, empty if it can. It reads the disk."""
        if self._supply is None:
            return "it sends none"
        text = self._supply.trouble(release)
        if text and (host := self._elsewhere(release)):
            text += f" (it was uploaded to the coordinator on {host})"
        return text

    def look_again(self, release: str) -> None:
        """Check soon whether a release can be sent: files of it have arrived."""
        self._troubles.pop(release, None)

    async def known_trouble(self, release: str) -> str:
        """Return why a release cannot be sent from here, as it was checked lately."""
        at, text = self._troubles.get(release, (float("-inf"), ""))
        if time.monotonic() - at >= CHECK_S:
            text = await asyncio.to_thread(self.trouble, release)
            self._troubles[release] = (time.monotonic(), text)
            _log.debug("release %.12s: %s", release, text or "its files are here")
        return text

    async def _send(self, key: tuple[int, str], release: str, *, beside: bool) -> None:
        """Send a robot its files; `beside` a client only if SSH does not reach it."""
        number, robot = key
        wait = self._waits[key]
        try:
            if beside and not self.is_beyond(robot):
                why = await ssh_trouble(self._robots.get(robot).machine)
                if not why:
                    wait.due = time.monotonic() + BESIDE_S
                    return  # the client sends them
                self._beyond[robot] = (time.monotonic(), why)
            _log.info("rollout %d: robot `%s` gets its files from here", number, robot)
            sent = await self._deliver(wait, release, robot)
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

    async def _deliver(self, wait: _Wait, release: str, robot: str) -> object:
        """Send files over SSH, or over the robot's own connection if SSH does not reach it.

        Raises:
            ProblemError: neither is possible, or the robot does not take them.
        """
        assert self._supply is not None
        machine = self._robots.get(robot).machine

        def show(way: str, progress: Any) -> None:
            share = f": {100 * progress.done // progress.total} %" if progress.total else ""
            wait.text = f"the coordinator sends its files over {way}{share}"

        if not self.is_beyond(robot):
            try:
                return await self._supply.send(release, machine, partial(show, "SSH"))
            except ProblemError as error:
                if error.code not in _NO_SSH:
                    raise
                self._beyond[robot] = (time.monotonic(), str(error))
                _log.info("SSH does not reach robot `%s`, which shall connect: %s", robot, error)
        try:
            return await self._supply.send(
                release,
                machine,
                partial(show, OWN_WAY),
                lambda id_: self._files.open(id_, release),
            )
        except ProblemError as error:
            if error.code == "refused":
                raise
            _, why = self._beyond[robot]
            raise ControlError(
                "unavailable", f"over SSH: {why}; over {OWN_WAY}: {error}"
            ) from error

    def is_beyond(self, robot: str) -> bool:
        """Return True if SSH did not reach a robot when it was tried last, not long ago."""
        known = self._beyond.get(robot)
        return known is not None and time.monotonic() - known[0] < SSH_AGAIN_S

    def way(self, robot: str) -> str:
        """Return which way a robot gets its files from here."""
        return OWN_WAY if self.is_beyond(robot) else f"SSH, else {OWN_WAY}"

    async def _refuse(self, number: int, robot: str, reason: str) -> None:
        try:
            await self._driver.refuse(number, robot, reason)
        except ProblemError as error:
            _log.warning("rollout %d: the refusal of `%s` is not kept: %s", number, robot, error)


async def ssh_trouble(machine: Machine) -> str:
    """Return why nothing answers at a robot's port of SSH; empty if something does."""
    port = machine.port or SSH_PORT
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(machine.host, port)
    except TimeoutError:
        return f"{machine.host} port {port} does not answer"
    except OSError as error:
        return f"{machine.host} port {port}: {error.strerror or error}"
    writer.close()
    return ""
