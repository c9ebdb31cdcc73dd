"""The robots of a rollout and their batches, or why it is impossible. Pure functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from dorad.control.errors import ControlError
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.params import as_json
from dorad.phrases import first_of, shorten
from dorafleet.rollout.gates import impossible
from dorafleet.rollout.model import FleetRobot, Member
from dorafleet.rollout.strategy import Strategy, amount, problems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dorad.control.messages.releases import Group
    from dorad.release.changes import Changes
    from dorafleet.rollout.messages import RolloutNew

MAX_NAMED = 5
MAX_VALUE = 80
"""Characters of a parameter that are shown."""

HAS_IT = "it has it already"
NO_NODE = "no node is placed on it"
EACH = "each"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A robot of the fleet, as a plan sees it."""

    id: str
    labels: Mapping[str, str]
    reachable: bool = True
    trouble: str = ""
    arch: str = ""
    """Empty if it was never connected."""
    before: str = ""
    """Its desired release."""
    before_group: Group | None = None
    before_scope: str = "each"
    params: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    """The highest that it has confirmed."""
    is_on_it: bool = False
    """Whether it has confirmed the release, and is ordered to run it."""
    failed: str = ""
    """Why the release has failed there before."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The robots of a rollout, and those that are left out with the reason."""

    members: list[Member]
    left_out: dict[str, str]
    scope: str


Groups: TypeAlias = "Mapping[str, Group]"
"""The group of each robot that runs the release together with others."""


def select(
    new: RolloutNew,
    fleet: Sequence[Candidate],
    sequence: int,
    nodes: Collection[str],
    groups: Groups = MappingProxyType({}),
) -> Selection:
    """Return who takes part. `sequence` and `nodes` are those of the release.

    With a scope other than `each`, only robots in `groups` do. The machines of an instance take
    part together, or none of them does.

    Raises:
        ControlError: the rollout cannot be; nothing is changed.
    """
    if wrong := [str(each) for each in problems(new.strategy)]:
        raise ControlError("bad-request", "; ".join(wrong), problems=wrong)
    _check_params(new.params or {}, nodes)
    chosen = chosen_of(new, fleet)
    left_out: dict[str, str] = {}
    part: list[Candidate] = []
    units: dict[str, list[Candidate]] = {}
    for each in chosen:
        if new.scope in (None, EACH):
            units[each.id] = [each]
        elif each.id in groups:
            units.setdefault(groups[each.id].instance, []).append(each)
        else:
            left_out[each.id] = NO_NODE
    for unit in units.values():
        if why := _why_not(new, unit, groups):
            left_out |= dict.fromkeys((each.id for each in unit), why)
        else:
            part += unit
    if not part:
        raise _nothing_left(left_out)
    if not new.allow_lower:
        _check_sequence(part, sequence)
    strategy = new.strategy
    _check_budget(strategy, part, fleet, groups)
    batches = _batches(strategy, part, groups)
    members = [
        Member(
            robot=each.id,
            batch=batches[each.id],
            before=each.before,
            before_params=dict(each.params),
            before_group=each.before_group,
            before_scope=each.before_scope,
            params=_kept(each.params, nodes) if new.params is None else dict(new.params),
            instance="" if (group := groups.get(each.id)) is None else group.instance,
            group=group,
            lost=each.id in new.lost,
        )
        for each in sorted(part, key=lambda each: batches[each.id])
    ]
    return Selection(members, left_out, new.scope or EACH)


def _why_not(new: RolloutNew, unit: Sequence[Candidate], groups: Groups) -> str:
    """Return why a robot, or the machines of an instance, do not take part; empty if they do."""
    if all(
        each.is_on_it
        and new.params in (None, dict(each.params))
        and each.before_group == groups.get(each.id)
        for each in unit
    ):
        return HAS_IT
    failed = [each for each in unit if each.failed and not each.is_on_it]
    if failed and not new.retry:
        there = "there" if len(unit) == 1 else f"on `{failed[0].id}`"
        return f"it has failed {there}: {failed[0].failed}; `--retry` tries again"
    return ""


def with_params(changes: Changes, before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """Return the changes with those of parameters: a node with another parameter is replaced."""
    names = sorted(
        name for name in {*before, *after} if _encoded(before, name) != _encoded(after, name)
    )
    if not names:
        return changes
    nodes = {name.partition("/")[0] for name in names}
    return replace(
        changes,
        params=[
            f"{name}: {shorten(_encoded(before, name), MAX_VALUE)} → "
            f"{shorten(_encoded(after, name), MAX_VALUE)}"
            for name in names
        ],
        replaced=sorted({*changes.replaced, *(nodes & {*changes.untouched, *changes.uncompared})}),
        untouched=[node for node in changes.untouched if node not in nodes],
        uncompared=[node for node in changes.uncompared if node not in nodes],
    )


def _check_params(params: Mapping[str, Any], nodes: Collection[str]) -> None:
    for name in params:
        node, _, key = name.partition("/")
        if node not in nodes or not key:
            raise ControlError(
                "refused",
                f"the release has no node for the parameter `{shorten(name, MAX_VALUE)}`",
                did_you_mean(node, nodes) or "parameters are named `node/name`",
            )


def _kept(params: Mapping[str, Any], nodes: Collection[str]) -> dict[str, Any]:
    """Return the parameters of nodes that are still there."""
    return {name: value for name, value in params.items() if name.partition("/")[0] in nodes}


def _encoded(params: Mapping[str, Any], name: str) -> str:
    """Return a parameter as JSON, or that it has its default."""
    return as_json(params[name]).decode() if name in params else "default"


def chosen_of(new: RolloutNew, fleet: Sequence[Candidate]) -> list[Candidate]:
    """Return the robots that a rollout is for. Raises ControlError."""
    ids = [each.id for each in fleet]
    wanted = set(new.robots)
    if unknown := sorted(wanted.difference(ids)):
        hint = did_you_mean(unknown[0], ids)
        raise ControlError("not-found", f"there is no robot `{unknown[0]}`", hint)
    named = [each for each in fleet if not wanted or each.id in wanted]
    chosen = [each for each in named if _has(each, new.labels)]
    if not chosen:
        labels = ", ".join(f"{key}={value}" for key, value in new.labels.items())
        raise ControlError(
            "refused",
            f"no robot has {labels}" if labels else "the fleet has no robot",
            "`dorafleet labels ROBOT` shows and changes labels",
        )
    return chosen


def _has(candidate: Candidate, labels: Mapping[str, str]) -> bool:
    return all(candidate.labels.get(key) == value for key, value in labels.items())


def _check_sequence(part: Sequence[Candidate], sequence: int) -> None:
    above = [each for each in part if each.sequence > sequence]
    if above:
        raise ControlError(
            "refused",
            f"its sequence {sequence} is below {max(each.sequence for each in above)}, which "
            f"{_named(above)} confirmed",
            "`--allow-lower` goes back to an older release",
        )


def _nothing_left(left_out: Mapping[str, str]) -> ControlError:
    reasons = sorted(set(left_out.values()))
    if reasons == [HAS_IT]:
        count = len(left_out)
        robots = "the robot has" if count == 1 else f"all {count} robots have"
        return ControlError("exists", f"there is nothing to do: {robots} it already")
    first = next(id_ for id_, why in left_out.items() if why == reasons[0])
    more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return ControlError(
        "refused",
        f"there is nothing to do: `{first}`{more}: {'; '.join(reasons)}",
        "`dorafleet drift` shows what robots run",
    )


def _check_budget(
    strategy: Strategy, part: Sequence[Candidate], fleet: Sequence[Candidate], groups: Groups
) -> None:
    budget = strategy.disruption_budget
    if budget is None:
        return
    if not any(budget.group_by in each.labels for each in part):
        raise ControlError(
            "refused",
            f"disruption_budget: no robot has the label `{budget.group_by}`",
            "`dorafleet labels ROBOT` shows and changes labels",
        )
    robots = {each.id: FleetRobot(each.labels.get(budget.group_by, ""), True) for each in fleet}
    reason = impossible(budget, robots, [each.id for each in part])
    sizes = Counter(robot.group for robot in robots.values())
    for instance, unit in _units(part, groups).items():
        for group, count in Counter(robots[each.id].group for each in unit).items():
            if count > 1 and count > amount(budget.max_unavailable, sizes[group]):
                reason = (
                    f"max_unavailable {budget.max_unavailable} is less than the {count} machines "
                    f"of `{instance}` with `{budget.group_by}={group}`, which switch together"
                )
    if reason:
        raise ControlError("refused", f"disruption_budget: {reason}", "allow more")


def _units(part: Iterable[Candidate], groups: Groups) -> dict[str, list[Candidate]]:
    """Return the robots by what switches as one, in their order."""
    units: dict[str, list[Candidate]] = {}
    for each in part:
        group = groups.get(each.id)
        units.setdefault(each.id if group is None else group.instance, []).append(each)
    return units


def _batches(strategy: Strategy, part: Sequence[Candidate], groups: Groups) -> dict[str, int]:
    """Return the batch of each robot; 0 is that of the canaries.

    Amounts count instances. An instance is selected if one of its machines is.
    """
    units = _units(part, groups)
    sizes = dict.fromkeys(_canaries(strategy, units), 0)
    number = 0
    for number, batch in enumerate(strategy.batches, start=1):
        matching = [name for name, unit in units.items() if _one_has(unit, batch.selector)]
        if not matching:
            raise ControlError("refused", f"batches[{number - 1}] selects none of the robots")
        free = [name for name in matching if name not in sizes]
        limit = len(free)
        if batch.limit is not None:
            limit = max(1, amount(batch.limit, len(units)))  # a percentage is at least 1
        sizes |= dict.fromkeys(free[:limit], number)
    return {each.id: sizes.get(name, number + 1) for name, unit in units.items() for each in unit}


def _one_has(unit: Iterable[Candidate], labels: Mapping[str, str]) -> bool:
    return any(_has(each, labels) for each in unit)


def _canaries(strategy: Strategy, units: Mapping[str, Sequence[Candidate]]) -> list[str]:
    wanted = amount(strategy.canary, len(units))
    if strategy.canary in (0, "0"):
        if strategy.canary_selector:
            raise ControlError("refused", "canary_selector: `canary` is 0")
        return []
    matching = [name for name, unit in units.items() if _one_has(unit, strategy.canary_selector)]
    if not matching:
        labels = ", ".join(f"{k}={v}" for k, v in strategy.canary_selector.items())
        raise ControlError(
            "refused",
            f"canary_selector: none of the robots that change has {labels}",
            "`dorafleet labels ROBOT` shows and changes labels",
        )
    if not strategy.canary_selector:
        # Prefer robots that answer.
        matching.sort(key=lambda name: not all(each.reachable for each in units[name]))
    return matching[: max(1, wanted)]


def _named(robots: Sequence[Candidate]) -> str:
    return first_of((f"`{each.id}`" for each in robots), MAX_NAMED)
