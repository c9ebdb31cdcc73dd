"""The strategy of a rollout: its keys, their defaults, and checks of their values."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from dorad.control.messages import Struct
from dorad.control.messages.releases import HealthRules
from dorad.dataflow.ports import MAX_RATE_HZ
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


class Mistake(NamedTuple):
    """A value of a strategy that cannot be meant."""

    key: str
    """Its path, such as `batches[1].limit`."""
    reason: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


def problems(strategy: Strategy) -> Iterator[Mistake]:
    """Yield the values that no new rollout may have."""
    yield from broken(strategy)
    yield from _nothing_problems(strategy)
    yield from _batch_problems(strategy)
    yield from _rule_problems(strategy.rules)


def broken(strategy: Strategy) -> Iterator[Mistake]:
    """Yield the values that no rollout can go on with, not even one that is stored."""
    for key, value in _amounts(strategy).items():
        try:
            amount(value, 100)
        except ValueError as error:
            yield Mistake(key, str(error), "write a number such as `2`, or `10%`")
    if strategy.max_parallel in (0, "0"):
        yield Mistake("max_parallel", "0 robots would never switch", "write 1 or more")
    if len(strategy.batches) > MAX_BATCHES:
        yield Mistake("batches", f"there are more than {MAX_BATCHES}")
    if strategy.disruption_budget is not None and not strategy.disruption_budget.group_by:
        yield Mistake("disruption_budget.group_by", "it names no label", "such as `group_by: zone`")
    yield from _window_problems(strategy)
    yield from _time_problems(strategy)


def _amounts(strategy: Strategy) -> dict[str, Amount]:
    """Return the amounts that are given, by key."""
    amounts: dict[str, Amount | None] = {
        "canary": strategy.canary,
        "max_parallel": strategy.max_parallel,
        "failure_threshold": strategy.failure_threshold,
        **{f"batches[{i}].limit": each.limit for i, each in enumerate(strategy.batches)},
    }
    if strategy.disruption_budget is not None:
        amounts["disruption_budget.max_unavailable"] = strategy.disruption_budget.max_unavailable
    return {key: value for key, value in amounts.items() if value is not None}


def is_nothing(value: Amount) -> bool:
    """Return True for 0 and for 0 %, however they are written."""
    return not str(value).replace(" ", "").removesuffix("%").strip("0")


def _nothing_problems(strategy: Strategy) -> Iterator[Mistake]:
    """Yield each amount of nothing where at least one robot is meant."""
    for key, value in _amounts(strategy).items():
        if not is_nothing(value) or key == "failure_threshold":
            continue
        if key == "canary":
            if value not in (0, "0"):
                hint = "write 0 for no canary, else 1 or more"
                yield Mistake(key, f"{value} of the robots are none", hint)
        elif (key, value) not in (("max_parallel", 0), ("max_parallel", "0")):  # those are broken
            which = f"{value} of the" if isinstance(value, str) and "%" in value else f"{value}"
            hint = "leave it out for no limit" if key.endswith(".limit") else "write 1 or more"
            yield Mistake(key, f"{which} robots would never switch", hint)


def _batch_problems(strategy: Strategy) -> Iterator[Mistake]:
    """Yield each batch whose robots are all in an earlier one."""
    unlimited: dict[frozenset[tuple[str, str]], int] = {}
    for number, batch in enumerate(strategy.batches):
        labels = frozenset(batch.selector.items())
        first = next((unlimited[each] for each in unlimited if each <= labels), None)
        if first is not None:
            yield Mistake(
                f"batches[{number}]",
                f"selects only robots that are in batches[{first}], which has no limit",
                f"remove it, or give batches[{first}] a `limit`",
            )
        elif batch.limit is None:
            unlimited[labels] = number


def _rule_problems(rules: HealthRules) -> Iterator[Mistake]:
    if not 0 <= rules.min_rate <= 1:
        yield Mistake(
            "min_rate",
            f"{rules.min_rate:g} is not between 0 and 1",
            "it is a part of the rate before: 0.5 is half of it",
        )
    for name, rate in rules.rates.items():
        if not 0 <= rate <= MAX_RATE_HZ:
            yield Mistake(
                f"rates.{name}", f"{rate:g} is not between 0 and {MAX_RATE_HZ:g} messages a second"
            )
    yield from _twice("quiet", rules.quiet)
    for name in rules.quiet:
        if rules.rates.get(name):
            yield Mistake(
                f"rates.{name}", "has no effect: the output is `quiet`", "remove it from one"
            )
    yield from _twice("probes", rules.probes)
    for number, command in enumerate(rules.probes):
        if not command or not command[0]:
            yield Mistake(f"probes[{number}]", "has no command", "such as `[./check.sh]`")


def _twice(key: str, items: Sequence[object]) -> Iterator[Mistake]:
    """Yield each item of a list that is there before."""
    for number, item in enumerate(items):
        first = items.index(item)
        if first < number:
            yield Mistake(f"{key}[{number}]", f"is the same as {key}[{first}]", "remove one")


def _window_problems(strategy: Strategy) -> Iterator[Mistake]:
    if len(strategy.windows) > windows.MAX_WINDOWS:
        yield Mistake("windows", f"there are more than {windows.MAX_WINDOWS}")
        return
    yield from _twice("windows", strategy.windows)
    for number, text in enumerate(strategy.windows):
        try:
            windows.parse(text)
        except ValueError as error:
            yield Mistake(f"windows[{number}]", str(error))


def _time_problems(strategy: Strategy) -> Iterator[Mistake]:
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
        yield Mistake(key, f"{times[key]:g} is not between 0 and {MAX_SECONDS:g} seconds")
    if wrong:
        return
    if rules.healthy_deadline < rules.min_healthy_time:
        yield Mistake(
            "healthy_deadline",
            f"{rules.healthy_deadline:g} s end before the {rules.min_healthy_time:g} s of "
            "min_healthy_time, so that no robot could be confirmed",
            "make it longer",
        )
    if strategy.progress_deadline < rules.healthy_deadline:
        yield Mistake(
            "progress_deadline",
            f"{strategy.progress_deadline:g} s end before the {rules.healthy_deadline:g} s of "
            "healthy_deadline",
            "make it longer",
        )
