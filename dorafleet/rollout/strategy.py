"""The strategy of a rollout: its keys, their defaults, and checks of their values."""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from dorad.control.messages import Struct
from dorad.control.messages.releases import HealthRules
from dorad.int64 import Int64
from dorafleet.rollout import windows

Amount = Int64 | str
"""A number of robots, or a percentage such as `10%`."""

MIN_FAILURES = 2
"""Failures that the default threshold always allows."""

MAX_BATCHES = 100
MAX_SECONDS = 366 * 86400.0

_PERCENT = re.compile(r"(\d{1,3})%")


class Budget(Struct):
    """The maximum number of robots of a group that may be unavailable, for any reason."""

    group_by: str
    """A label; robots with the same value are one group, those without it another."""
    max_unavailable: Amount = 1


class Batch(Struct):
    """A group of robots that switch after those of the batches before."""

    selector: dict[str, str] = {}
    """Labels that they have."""
    limit: Amount | None = None
    """The maximum number of them at a time; None sets no limit."""


class Strategy(Struct):
    """The keys of a rollout. Times are in seconds."""

    canary: Amount = 1
    """Number of robots that switch first, alone; 0 for none."""
    canary_selector: dict[str, str] = {}
    """Labels that the canaries have."""
    auto_promote: bool = True
    """Whether the other robots follow without `promote` once the canaries are confirmed."""
    max_parallel: Amount = "10%"
    """Maximum number of robots that switch at a time; a percentage is at least 1."""
    batches: list[Batch] = []
    """The order of the others; those in no batch come last."""
    progress_deadline: float = 600.0
    """Time from the switch after which a reachable robot without a verdict has failed."""
    auto_revert: bool = True
    """Whether all robots revert when too many have failed."""
    failure_threshold: Amount | None = None
    """Failures that are accepted; none of a canary is. Default: 10 %, at least 2."""
    disruption_budget: Budget | None = None
    windows: list[str] = []
    """When a switch may begin; always, if there are none."""
    busy: Literal["wait", "ignore"] = "wait"
    """What to do about a robot with a lease."""
    busy_max: float = 4 * 3600.0
    """How long to wait for a lease; then the rollout continues without this robot."""
    catch_up: float = 30 * 86400.0
    """How long to wait for unreachable robots."""
    soak_time: float = 600.0
    """How long confirmed robots are watched after the last one was confirmed."""
    rules: HealthRules = msgspec.field(default_factory=HealthRules)
    """How a robot checks its health."""


def amount(value: Amount, total: int) -> int:
    """Return a number of robots; a percentage of `total` is rounded down. Raises ValueError."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is below 0")
        return value
    match = _PERCENT.fullmatch(value.replace(" ", ""))
    if match is None or int(match[1]) > 100:
        if value.isdecimal() and len(value) < 10:
            return int(value)
        raise ValueError(f"`{value}` is neither a number nor a percentage such as `10%`")
    return total * int(match[1]) // 100


def parallel(strategy: Strategy, total: int, most: Amount | None = None) -> int:
    """Return how many of `total` robots may switch at a time; `most` replaces the strategy's."""
    return max(1, amount(strategy.max_parallel if most is None else most, total))


def tolerated(strategy: Strategy, total: int) -> int:
    """Return how many of `total` robots may fail."""
    if strategy.failure_threshold is None:
        return max(MIN_FAILURES, total // 10)
    return amount(strategy.failure_threshold, total)


def problems(strategy: Strategy) -> Iterator[str]:
    """Yield the invalid values, as lines `key: reason`."""
    amounts = {
        "canary": strategy.canary,
        "max_parallel": strategy.max_parallel,
        "failure_threshold": strategy.failure_threshold,
        **{f"batches[{i}].limit": each.limit for i, each in enumerate(strategy.batches)},
    }
    if strategy.disruption_budget is not None:
        amounts["disruption_budget.max_unavailable"] = strategy.disruption_budget.max_unavailable
    for key, value in amounts.items():
        try:
            if value is not None:
                amount(value, 100)
        except ValueError as error:
            yield f"{key}: {error}"
    if strategy.max_parallel in (0, "0"):
        yield "max_parallel: 0 robots would never switch"
    if len(strategy.batches) > MAX_BATCHES:
        yield f"batches: there are more than {MAX_BATCHES}"
    if strategy.disruption_budget is not None and not strategy.disruption_budget.group_by:
        yield "disruption_budget.group_by: it names no label"
    yield from _window_problems(strategy)
    yield from _time_problems(strategy)


def _window_problems(strategy: Strategy) -> Iterator[str]:
    if len(strategy.windows) > windows.MAX_WINDOWS:
        yield f"windows: there are more than {windows.MAX_WINDOWS}"
        return
    for text in strategy.windows:
        try:
            windows.parse(text)
        except ValueError as error:
            yield f"windows: {error}"


def _time_problems(strategy: Strategy) -> Iterator[str]:
    rules = strategy.rules
    times = {
        "min_healthy_time": rules.min_healthy_time,
        "healthy_deadline": rules.healthy_deadline,
        "confirm_deadline": rules.confirm_deadline,
        "progress_deadline": strategy.progress_deadline,
        "busy_max": strategy.busy_max,
        "catch_up": strategy.catch_up,
        "soak_time": strategy.soak_time,
    }
    wrong = [key for key, value in times.items() if not 0 <= value <= MAX_SECONDS]
    for key in wrong:
        yield f"{key}: {times[key]:g} is not between 0 and {MAX_SECONDS:g} seconds"
    if wrong:
        return
    if rules.healthy_deadline < rules.min_healthy_time:
        yield (
            f"healthy_deadline: {rules.healthy_deadline:g} s end before the "
            f"{rules.min_healthy_time:g} s of min_healthy_time, so that no robot could be confirmed"
        )
    if strategy.progress_deadline < rules.healthy_deadline:
        yield (
            f"progress_deadline: {strategy.progress_deadline:g} s end before the "
            f"{rules.healthy_deadline:g} s of healthy_deadline"
        )
