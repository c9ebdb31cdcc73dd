"""Run the same work on many robots at once. A failure on one does not affect the others."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dorafleet.ssh.connection import Connection, connect
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dorafleet.inventory.model import Machine

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MachineOutcome(Generic[Result]):
    """The outcome of the work on one robot: a result or an error."""

    machine: Machine
    result: Result | None = None
    error: SshError | None = None


async def run_on_each(
    machines: Sequence[Machine],
    work: Callable[[Machine], Awaitable[Result]],
    *,
    parallel: int,
    on_outcome: Callable[[MachineOutcome[Result]], object] = lambda outcome: None,
) -> list[MachineOutcome[Result]]:
    """Run `work` on up to `parallel` machines at once; return the outcomes in their order.

    `on_outcome` is called with each outcome at once. Every exception becomes an outcome.
    Cancellation cancels the work on all machines and waits for its clean-up.
    """
    semaphore = asyncio.Semaphore(parallel)

    async def run_one(machine: Machine) -> MachineOutcome[Result]:
        async with semaphore:
            try:
                outcome = MachineOutcome(machine, await work(machine))
            except SshError as error:
                outcome = MachineOutcome(machine, error=error)
            except Exception as error:  # noqa: BLE001 - becomes this machine's outcome
                _log.debug("%s: unexpected error", machine.id, exc_info=True)
                message = f"unexpected {type(error).__name__}: {error}"
                hint = "please report it, with the output of this machine that caused it"
                outcome = MachineOutcome(machine, error=SshError(Code.UNEXPECTED, message, hint))
        on_outcome(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_one(machine)) for machine in machines]
    return [task.result() for task in tasks]


async def read_from_each(
    machines: Sequence[Machine],
    read: Callable[[Connection], Awaitable[Result]],
    *,
    parallel: int,
    accept_new: bool,
) -> list[MachineOutcome[Result]]:
    """Connect to each machine and read from it, as `run_on_each` does; see `connect`."""

    async def read_one(machine: Machine) -> Result:
        async with connect(machine, accept_new=accept_new) as robot:
            return await read(robot)

    return await run_on_each(machines, read_one, parallel=parallel)
