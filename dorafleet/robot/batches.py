"""Do the same on all machines, canaries first; stop when too many have failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dorafleet.rollout.strategy import Strategy, amount, parallel, tolerated
from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.fanout import MachineOutcome, run_on_each

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dorafleet.inventory.model import Machine

R = TypeVar("R")

MAX_PARALLEL = 50


class Groups(NamedTuple):
    """The machines in the order in which they come."""

    canaries: list[Machine]
    others: list[Machine]


def groups(machines: Sequence[Machine], strategy: Strategy) -> Groups:
    """Return the canaries and the others.

    Raises:
        ValueError: no machine has the labels of the canaries.
    """
    wanted = strategy.canary_selector.items()
    matching = [each for each in machines if wanted <= each.labels.items()]
    count = amount(strategy.canary, len(machines))
    if count and not matching:
        words = ", ".join(f"{name}={value}" for name, value in wanted)
        raise ValueError(f"no machine has the labels of the canaries: {words}")
    canaries = matching[:count]
    return Groups(canaries, [each for each in machines if each not in canaries])


def why_stop(outcomes: Sequence[MachineOutcome[R]], allowed: int, ok: Callable[[R], bool]) -> str:
    """Return why no further machine may begin; empty if one may.

    A machine that cannot be reached, or was refused before anything changed, has not failed.
    """
    failed = [each.machine.id for each in outcomes if _has_failed(each, ok)]
    if len(failed) <= allowed:
        return ""
    return f"{len(failed)} failed ({', '.join(failed[:5])}), {allowed} are accepted"


def _has_failed(outcome: MachineOutcome[R], ok: Callable[[R], bool]) -> bool:
    if outcome.error is not None:
        return outcome.error.code.is_after_login and outcome.error.code is not Code.REFUSED
    return outcome.result is not None and not ok(outcome.result)


async def run_rolling(
    machines: Sequence[Machine],
    work: Callable[[Machine], Awaitable[R]],
    ok: Callable[[R], bool],
    strategy: Strategy,
    on_outcome: Callable[[MachineOutcome[R]], object],
) -> tuple[list[MachineOutcome[R]], str]:
    """Run `work` on the canaries, then on the others; return the outcomes, and why it stopped.

    Raises:
        ValueError: no machine has the labels of the canaries.
    """
    outcomes: list[MachineOutcome[R]] = []
    canaries, others = groups(machines, strategy)

    def record(outcome: MachineOutcome[R]) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    at_once = min(parallel(strategy, len(machines)), MAX_PARALLEL)
    await run_on_each(canaries, work, parallel=at_once, on_outcome=record)
    if stop := why_stop(outcomes, 0, ok):
        return outcomes, f"of the canaries {stop}"
    if canaries and all(each.error is not None for each in outcomes):
        return outcomes, "no canary can be reached"
    allowed = tolerated(strategy, len(machines))

    async def unless_stopped(machine: Machine) -> R:
        if reason := why_stop(outcomes, allowed, ok):
            raise SshError(Code.REFUSED, f"not begun: {reason}")
        return await work(machine)

    await run_on_each(others, unless_stopped, parallel=at_once, on_outcome=record)
    return outcomes, why_stop(outcomes, allowed, ok)
