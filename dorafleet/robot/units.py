"""The units of dorad on a robot: whether they run now, and after a reboot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from dorafleet.robot import commands
from dorafleet.robot.facts import service_state, user_id

if TYPE_CHECKING:
    from dorafleet.ssh.connection import Connection

UNITS = (commands.UNIT, commands.AGENT_UNIT)


class Unit(NamedTuple):
    """A unit, in the words of systemctl."""

    active: str
    """`active`, `inactive`, `failed`, ..."""
    enabled: str
    """`enabled`, `disabled`, `not-found`, ..."""


Units = dict[str, Unit]
"""By name."""


async def read_units(robot: Connection) -> Units:
    """Read the state of both units. Raises SshError."""
    states = await asyncio.gather(*(_read(robot, unit) for unit in UNITS))
    return dict(zip(UNITS, states, strict=True))


async def disable_agent(robot: Connection) -> None:
    """Stop the agent, now and at boot, and remove its secrets. Raises SshError."""
    uid = user_id(await robot.check(commands.USER_ID))
    for words in (commands.DISABLE_AGENT, commands.REMOVE_SECRETS):
        await robot.check(commands.as_root(words, uid))


async def _read(robot: Connection, unit: str) -> Unit:
    active, enabled = await asyncio.gather(
        robot.run(("systemctl", "is-active", unit)), robot.run(("systemctl", "is-enabled", unit))
    )
    return Unit(service_state(active), service_state(enabled))
