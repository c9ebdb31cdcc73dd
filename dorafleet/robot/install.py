"""Install dorad on one robot and wait until its service answers."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorafleet.robot import commands
from dorafleet.robot.facts import check_sudo, plan, read_facts
from dorafleet.robot.state import read_daemon, read_units
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorafleet.robot.package import Package
    from dorafleet.ssh.connection import CommandResult, Connection

INSTALL_TIMEOUT_S = 900.0
"""How long apt-get may take: it waits for locks and unpacks to slow cards."""
READY_TIMEOUT_S = 60.0
"""How long the service may take to become active and answer."""
POLL_INTERVAL_S = 0.5
MAX_ERRORS = 3
"""Maximum number of apt-get's error lines in a message."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The result of an installation."""

    before: str | None
    """The version that was installed before."""
    version: str
    installed: bool
    enabled: bool
    agent: bool = False
    """Whether its agent was started."""

    def __str__(self) -> str:
        agent = "; its agent started" if self.agent else ""
        if self.installed and self.before:
            return f"{self.before} → {self.version}, active{agent}"
        if self.installed:
            return f"{self.version} installed, active{agent}"
        if self.enabled:
            return f"{self.version} was installed already; enabled and started, active{agent}"
        if self.agent:
            return f"{self.version} is installed already, active{agent}"
        return f"{self.version} is installed already, active: nothing to do"


class Installation:
    """The installation of one package on one robot.

    `on_step` gets the name of each step before it starts, `on_sent` the number of copied bytes.
    """

    def __init__(
        self,
        robot: Connection,
        package: Package,
        *,
        on_step: Callable[[str], object],
        on_sent: Callable[[int], object],
        downgrade: bool = False,
    ) -> None:
        self._robot = robot
        self._package = package
        self._on_step = on_step
        self._on_sent = on_sent
        self._downgrade = downgrade
        self._uid = 0

    async def run(self) -> Installed:
        """Run the steps that this robot needs. Raises SshError."""
        facts = await read_facts(self._robot)
        steps = plan(facts, self._package)
        self._uid = facts.uid
        if self._uid:
            await check_sudo(self._robot)
        if steps.install:
            await self._install()
        if steps.enable:
            self._on_step("starting the service")
            await self._check_as_root(commands.ENABLE, timeout=READY_TIMEOUT_S)
        if not steps.nothing:
            self._on_step("waiting until it answers")
        await self._wait_ready()
        agent = await self._start_agent()
        return Installed(facts.version, self._package.version, steps.install, steps.enable, agent)

    async def _start_agent(self) -> bool:
        """Start the agent if it is to run after a boot, and does not: `apt remove` has stopped it.

        Return False if there was nothing to do. Raises SshError.
        """
        agent = (await read_units(self._robot))[commands.AGENT_UNIT]
        if agent.enabled != "enabled" or agent.active == "active":
            return False
        self._on_step("starting the agent")
        await self._check_as_root(commands.ENABLE_AGENT, timeout=READY_TIMEOUT_S)
        agent = (await read_units(self._robot))[commands.AGENT_UNIT]
        if agent.active != "active":
            message = f"{self._package.version} is installed, but its agent is {agent.active}"
            raise SshError(Code.FAILED, message, "there: journalctl -u dorad-agent -n 50")
        return True

    async def _install(self) -> None:
        folder = (await self._robot.check(commands.MAKE_FOLDER)).strip()
        started = False
        try:
            self._on_step("copying")
            name = "dorad.deb"
            await self._robot.upload(self._package.path, f"{folder}/{name}", self._on_sent)
            unit = f"dorafleet-install-{secrets.token_hex(4)}"
            self._on_step("installing")
            started = True
            command = commands.install(folder, name, unit, downgrade=self._downgrade)
            await self._apt(command, unit)
        finally:
            # The command itself removes the folder once it was started.
            if not started:
                # Best effort: the exception that led here matters more than one from this.
                with suppress(SshError):
                    await self._robot.run(commands.remove(folder), timeout=5)

    async def _apt(self, command: Sequence[str], unit: str) -> None:
        hint = f"the installation continues there: journalctl -u {unit}"
        try:
            done = await self._robot.run(
                commands.as_root(command, self._uid),
                timeout=INSTALL_TIMEOUT_S,
                doing="the installation",
            )
        except SshError as error:
            raise SshError(error.code, error.message, hint) from error
        except asyncio.CancelledError:
            self._on_step(hint)
            raise
        if done.code:
            await self._robot.run(commands.as_root(commands.SYNC, self._uid))
            shown = commands.as_root(commands.journal(unit), self._uid)
            journal = await self._robot.run(shown)
            raise SshError(Code.FAILED, f"apt-get failed: {failure_reason(done, journal)}")

    async def _check_as_root(self, command: Sequence[str], *, timeout: float) -> None:
        await self._robot.check(commands.as_root(command, self._uid), timeout=timeout)

    async def _wait_ready(self) -> None:
        """Wait until the service answers. Raises SshError with the last problem."""
        problem = "it does not answer"
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while True:
                    daemon = await read_daemon(self._robot, self._uid)
                    if daemon.service == "active" and daemon.answers:
                        return
                    problem = daemon.problem or f"the service is {daemon.service}"
                    if daemon.service == "failed" or daemon.lasting:
                        break
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            problem = f"{problem}, {READY_TIMEOUT_S:g} s after the start"
        raise SshError(Code.FAILED, f"installed, but {problem}", "there: journalctl -u dorad -n 50")


def failure_reason(done: CommandResult, journal: CommandResult) -> str:
    """Return why apt-get failed: its errors, else its last lines."""
    lines = [line.strip() for line in journal.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E: ", "dpkg: error"))]
    return "; ".join((errors or lines)[-MAX_ERRORS:]) or done.last_line
