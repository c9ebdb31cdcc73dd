"""The same work on many robots, so many at once; what fails on one concerns no other."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dorafleet.inventory.model import Machine

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """How the work on one robot ended: with a result, or with an error."""

    machine: Machine
    result: Result | None = None
    error: SshError | None = None


async def each(
    machines: Sequence[Machine],
    work: Callable[[Machine], Awaitable[Result]],
    *,
    at_most: int,
    ended: Callable[[Outcome[Result]], object] = lambda outcome: None,
) -> list[Outcome[Result]]:
    """Return the outcomes in the order of the machines; each is told to `ended` at its end.

    Every error is an outcome, foreseen or not. Cancelling this cancels the work on all, and waits
    for it to clean up.
    """
    turns = asyncio.Semaphore(at_most)

    async def one(machine: Machine) -> Outcome[Result]:
        async with turns:
            try:
                outcome = Outcome(machine, await work(machine))
            except SshError as error:
                outcome = Outcome(machine, error=error)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this machine's
                _log.debug("%s: unexpected error", machine.id, exc_info=True)
                said = f"unexpected {type(error).__name__}: {error}"
                hint = "please report it, with the answer of this machine that it came from"
                outcome = Outcome(machine, error=SshError(Code.UNEXPECTED, said, hint))
        ended(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(machine)) for machine in machines]
    return [task.result() for task in tasks]
