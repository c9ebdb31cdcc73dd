"""What a node's real time becomes in its systemd unit. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dorad
from dorad.realtime.refusal import CAP_SYS_NICE, UNLIMITED
from dorad.realtime.schedule import SCHED_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.realtime.schedule import Schedule

NO_LIMIT = 2 * UNLIMITED - 1
"""As systemd writes it in an unsigned number."""

_ENTER = "import sys; sys.path.insert(0, {!r}); from dorad.realtime.enter import main; main()"


class Property(NamedTuple):
    """A property of a transient unit: name, D-Bus signature, value."""

    name: str
    signature: str
    value: bool | int | bytes


def properties(wanted: Schedule | None, cores: Iterable[int] = ()) -> list[Property]:
    """Return the properties of the unit of a process that is to be scheduled so, on these cores.

    At least one of the cores has to exist, or the unit fails. systemd knows no policy `deadline`:
    the unit gets the right to it, and `prefix` makes use of it.
    """
    found = []
    mask = sum({1 << core for core in cores})
    if mask:
        size = (mask.bit_length() + 7) // 8
        found.append(Property("CPUAffinity", "ay", mask.to_bytes(size, "little")))
    if wanted is None:
        return found
    if wanted.lock_memory:
        found.append(Property("LimitMEMLOCK", "t", NO_LIMIT))
    if wanted.policy == SCHED_DEADLINE:
        found.append(Property("AmbientCapabilities", "t", 1 << CAP_SYS_NICE))
    elif wanted.policy:
        found += [
            Property("CPUSchedulingPolicy", "i", wanted.policy),
            Property("CPUSchedulingPriority", "i", wanted.priority),
            Property("CPUSchedulingResetOnFork", "b", True),
        ]
    return found


def prefix(wanted: Schedule | None, python: str) -> tuple[str, ...]:
    """Return the words to put before a unit's command so that it runs as wanted; mostly none.

    `python` is an interpreter for them; nothing of the node's environment matters to it.
    """
    if wanted is None or wanted.policy != SCHED_DEADLINE:
        return ()
    code = _ENTER.format(str(Path(dorad.__file__).parents[1]))
    return (python, "-I", "-S", "-c", code, ",".join(map(str, wanted.numbers())))
