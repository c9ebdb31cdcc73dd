"""Install dorad on one robot, and wait until its service answers."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorafleet.robot import commands
from dorafleet.robot.facts import read_facts
from dorafleet.robot.plan import plan
from dorafleet.robot.state import read_daemon
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorafleet.robot.package import Package
    from dorafleet.ssh.connection import Connection, Finished

INSTALL_S = 900.0
"""Seconds for apt-get, which waits for locks and unpacks on slow cards."""
READY_S = 60.0
"""Seconds from the end of that until the service has to be active and answer."""
EVERY_S = 0.5
SHOWN = 3
"""Lines of apt-get's complaints."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What has been done."""

    before: str | None
    """The version that was there."""
    version: str
    installed: bool
    enabled: bool

    def __str__(self) -> str:
        if self.installed and self.before:
            return f"{self.before} → {self.version}, active"
        if self.installed:
            return f"{self.version} installed, active"
        if self.enabled:
            return f"{self.version} was there; enabled and started, active"
        return f"{self.version} is there already, active: nothing to do"


class Installation:
    """One package on one robot. `said` gets each step before it is done."""

    def __init__(
        self,
        robot: Connection,
        package: Package,
        *,
        said: Callable[[str], object],
        sent: Callable[[int], object],
        downgrade: bool = False,
    ) -> None:
        self._robot = robot
        self._package = package
        self._said = said
        self._sent = sent
        self._downgrade = downgrade
        self._uid = 0

    async def run(self) -> Installed:
        """Do what is to do. Raises SshError."""
        facts = await read_facts(self._robot)
        steps = plan(facts, self._package)
        self._uid = facts.uid
        if self._uid:
            await self._check_sudo()
        if steps.install:
            await self._install()
        if steps.enable:
            self._said("starting the service")
            await self._check_as_root(commands.ENABLE, timeout=READY_S)
        if not steps.nothing:
            self._said("waiting until it answers")
        await self._wait_ready()
        return Installed(facts.version, self._package.version, steps.install, steps.enable)

    async def _check_sudo(self) -> None:
        done = await self._robot.run(commands.MAY_SUDO)
        if done.code:
            said = f"its user is not root, and sudo says: {done.last_words}"
            hint = "let the user sudo without a password, or log in as root (`user: root`)"
            raise SshError(Code.DENIED, said, hint)

    async def _install(self) -> None:
        folder = (await self._robot.check(commands.MAKE_FOLDER)).strip()
        handed_over = False
        try:
            self._said("copying")
            name = "dorad.deb"
            await self._robot.upload(self._package.path, f"{folder}/{name}", self._sent)
            unit = f"dorafleet-install-{secrets.token_hex(4)}"
            self._said("installing")
            handed_over = True
            command = commands.install(folder, name, unit, downgrade=self._downgrade)
            await self._apt(command, unit)
        finally:
            if not handed_over:
                # Only tidiness: what interrupts this is what is told.
                with suppress(SshError):
                    await self._robot.run(commands.remove(folder), timeout=5)

    async def _apt(self, command: Sequence[str], unit: str) -> None:
        goes_on = f"the installation goes on there: journalctl -u {unit}"
        try:
            done = await self._robot.run(
                commands.as_root(command, self._uid), timeout=INSTALL_S, doing="the installation"
            )
        except SshError as error:
            raise SshError(error.code, error.message, goes_on) from error
        except asyncio.CancelledError:
            self._said(goes_on)
            raise
        if done.code:
            await self._robot.run(commands.as_root(commands.SYNC, self._uid))
            shown = commands.as_root(commands.journal(unit), self._uid)
            journal = await self._robot.run(shown)
            raise SshError(Code.FAILED, f"apt-get failed: {complaint(done, journal)}")

    async def _check_as_root(self, command: Sequence[str], *, timeout: float) -> None:
        await self._robot.check(commands.as_root(command, self._uid), timeout=timeout)

    async def _wait_ready(self) -> None:
        """Wait until the service answers. Raises SshError with what it says instead."""
        problem = "it does not answer"
        try:
            async with asyncio.timeout(READY_S):
                while True:
                    daemon = await read_daemon(self._robot, self._uid)
                    if daemon.service == "active" and daemon.answers:
                        return
                    problem = daemon.problem or f"the service is {daemon.service}"
                    if daemon.service == "failed":
                        break
                    await asyncio.sleep(EVERY_S)
        except TimeoutError:
            problem = f"{problem}, {READY_S:g} s after the start"
        raise SshError(Code.FAILED, f"installed, but {problem}", "there: journalctl -u dorad -n 50")


def complaint(done: Finished, journal: Finished) -> str:
    """Return why apt-get failed: its errors, else the last lines there are."""
    lines = [line.strip() for line in journal.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E: ", "dpkg: error"))]
    return "; ".join((errors or lines)[-SHOWN:]) or done.last_words
