"""The targets of a fleet, as its machines report them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.release.machine import Machine as Facts
from dorad.release.machine import fits
from dorad.release.manifest import Target
from dorafleet.robot.commands import agent_release
from dorafleet.robot.facts import decode
from dorafleet.ssh.connection import connect
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorafleet.inventory.model import Machine


async def read_machine(machine: Machine, *, accept_new: bool) -> Target:
    """Return the target that fits a machine. Raises SshError."""
    async with connect(machine, accept_new=accept_new) as robot:
        shown = await robot.check(agent_release("machine", "--json"))
    try:
        target = decode(shown, Facts).target
        return msgspec.convert(msgspec.to_builtins(target), Target)
    except (ValueError, msgspec.ValidationError) as error:
        message = f"`dorad-agent release machine` prints {shown[:100]!r}"
        raise SshError(Code.FAILED, message, "upgrade the package") from error


def target_of(arch: str, python: str, glibc: str) -> Target | None:
    """Return the target of a robot, None if it has not said enough, or nonsense."""
    try:
        target = msgspec.convert({"arch": arch, "python": python, "glibc": glibc}, Target)
    except msgspec.ValidationError:
        return None
    return target if target.python else None


def without_covered(targets: Iterable[Target], wanted: Sequence[Target]) -> list[Target]:
    """Return the targets without those whose machines run what is made for a wanted one."""
    return [
        each
        for each in targets
        if not any(fits(one, Facts(each.arch, each.python, each.glibc)) for one in wanted)
    ]


def merged(targets: Iterable[Target]) -> list[Target]:
    """Return each architecture and Python once, with the oldest glibc of those machines."""
    oldest: dict[tuple[str, str], Target] = {}
    for target in targets:
        key = target.arch, target.python
        if key not in oldest or _minor(target) < _minor(oldest[key]):
            oldest[key] = target
    return sorted(oldest.values())


def _minor(target: Target) -> int:
    return int(target.glibc.partition(".")[2] or 0)
