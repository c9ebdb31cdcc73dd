"""Upgrade dorad on one robot, which reverts by itself if the new version is not healthy."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from dorafleet.robot import commands, upgrade_there
from dorafleet.robot.facts import check_sudo, decode, plan, read_facts
from dorafleet.ssh.errors import MAX_MESSAGE, Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorafleet.robot.package import Package
    from dorafleet.ssh.connection import Connection

SLACK_S = 2 * upgrade_there.COMMAND_S + 60.0
"""Seconds beyond both deadlines of the robot: two installations."""


class Settings(msgspec.Struct, frozen=True):
    """How a robot checks the new version, in seconds from its installation."""

    min_healthy_time: float = 30.0
    healthy_deadline: float = 300.0
    no_way_back: bool = False
    """Whether to upgrade a robot that has no package to go back to."""


class Result(msgspec.Struct, frozen=True):
    """The result of an upgrade."""

    outcome: Literal["upgraded", "same", "reverted", "failed", "stuck", "refused"]
    """`failed`: the new version is not healthy, and there is no previous package."""
    before: str = ""
    version: str = ""
    """The version that is installed now."""
    target: str = ""
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the robot has the new version."""
        return self.outcome in ("upgraded", "same")

    @property
    def harmless(self) -> bool:
        """Whether the new version is healthy, or was not tried."""
        return self.ok or self.outcome == "refused"

    def __str__(self) -> str:
        match self.outcome:
            case "upgraded":
                return f"{self.before or 'none'} → {self.version}, healthy"
            case "same":
                return f"{self.version} is installed already: nothing to do"
            case "reverted":
                return f"went back to {self.version}: {self.reason}"
            case "refused":
                return self.reason
        return f"{self.outcome}, {self.version} is installed: {self.reason}"


async def upgrade(
    robot: Connection,
    package: Package,
    previous: Package | None,
    settings: Settings,
    *,
    on_step: Callable[[str], object],
    on_sent: Callable[[int], object],
) -> Result:
    """Upgrade a robot and return the result.

    The robot continues, and reverts if necessary, without this connection.

    Raises:
        SshError: it cannot be reached, or its answer is not valid.
    """
    facts = await read_facts(robot)
    if not plan(facts, package).install:
        return Result("same", facts.version or "", package.version)
    if facts.uid:
        await check_sudo(robot)
    folder = (await robot.check(commands.MAKE_FOLDER)).strip()
    unit = f"dorafleet-upgrade-{secrets.token_hex(4)}"
    try:
        on_step("copying")
        await robot.upload(Path(upgrade_there.__file__), f"{folder}/upgrade.py", lambda _: None)
        await robot.upload(package.path, f"{folder}/new.deb", on_sent)
        given = ""
        if previous is not None:
            given = f"{folder}/given.deb"
            await robot.upload(previous.path, given, lambda _: None)
        on_step("upgrading")
        command = commands.upgrade(folder, unit, given, msgspec.json.encode(settings).decode())
        ended = await robot.run(
            commands.as_root(command, facts.uid),
            timeout=2 * settings.healthy_deadline + SLACK_S,
            doing="the upgrade",
        )
    finally:
        # Best effort: the result, or the exception, matters more than a folder that stays.
        with suppress(SshError):
            await robot.run(commands.as_root(commands.remove(folder), facts.uid), timeout=5)
    return read_result(ended.stdout, ended.last_line)


def read_result(printed: str, last_line: str) -> Result:
    """Return the result in what the robot has printed. Raises SshError."""
    line = (printed.strip().splitlines() or [""])[-1]
    try:
        result = decode(line, Result)
    except ValueError as error:
        raise SshError(
            Code.FAILED,
            f"the upgrade prints: {last_line[:300]}",
            f"see {commands.KEPT}/result.json there",
        ) from error
    texts = ("before", "version", "target", "reason")
    return replace(result, **{name: getattr(result, name)[:MAX_MESSAGE] for name in texts})
