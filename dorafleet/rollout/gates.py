"""The gates of a switch: windows, robots at a time, budgets, leases. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dorafleet.rollout import windows
from dorafleet.rollout.model import FleetRobot, Member, Seen, View, units_of
from dorafleet.rollout.strategy import Budget, amount, parallel

Gate = Literal["unreachable", "files", "busy", "machines", "window", "budget", "parallel"]
"""What a robot waits for. `machines`: others of its instance are not ready. `parallel`: others
switch at the moment."""


@dataclass(slots=True)
class Passing:
    """Robots that may switch now, and why others may not."""

    robots: list[str] = field(default_factory=list)
    waiting: dict[str, Gate] = field(default_factory=dict)
    opening: float | None = None
    """When the next window opens, in seconds since 1970."""


def pass_gates(view: View, candidates: Iterable[Member], *, forward: bool) -> Passing:
    """Return which of the candidates, in their order, may switch at once.

    Those of one instance switch together, or wait together. A switch that goes back waits for no
    window.
    """
    rollout, strategy = view.rollout, view.rollout.strategy
    passing = Passing()
    at_once = rollout.back_at_once and not forward
    most = rollout.back_parallel if not forward else None
    size = len(view.units)
    free = size if at_once else parallel(strategy, size, most)
    in_flight = {member.unit for member in view.members.values() if member.in_flight}
    free -= len(in_flight)
    opening = next_opening(view) if forward else view.now
    room = _Room(view)
    for unit, members in units_of(candidates).items():
        robots = [member.robot for member in members]
        seen = [view.seen.get(member.robot) for member in members if not member.lost]
        gate: Gate | None = None
        if any(each is None or not each.reachable for each in seen):
            gate = "unreachable"
        elif strategy.busy == "wait" and any(each is not None and is_leased(each) for each in seen):
            gate = "busy"
        elif opening is None or opening > view.now:
            gate, passing.opening = "window", opening
        elif free <= 0 and unit not in in_flight:
            gate = "parallel"
        elif not at_once and not room.take(robots):
            gate = "budget"
        if gate is not None:
            passing.waiting |= dict.fromkeys(robots, gate)
            continue
        free -= unit not in in_flight
        passing.robots += robots
    return passing


def next_opening(view: View) -> float | None:
    """Return when a switch may begin, in seconds since 1970: `view.now` if a window is open.

    None if no window ever opens.
    """
    parsed = [windows.parse(text) for text in view.rollout.strategy.windows]
    return windows.next_opening(parsed, view.now)


def impossible(
    budget: Budget | None, fleet: Mapping[str, FleetRobot], robots: Iterable[str]
) -> str:
    """Return why a budget would never let some of these robots switch; empty if it may."""
    if budget is None:
        return ""
    sizes = Counter(robot.group for robot in fleet.values())
    for robot in robots:
        group = fleet[robot].group
        if amount(budget.max_unavailable, sizes[group]) < 1:
            name = f"with `{budget.group_by}={group}`" if group else f"without `{budget.group_by}`"
            return (
                f"max_unavailable {budget.max_unavailable} of {sizes[group]} robots {name} is 0: "
                f"`{robot}` could never switch"
            )
    return ""


def is_leased(seen: Seen) -> bool:
    """Return True if the robot has a lease, or its own probe forbids the switch."""
    state = seen.state
    return state is not None and (bool(state.leases) or state.waiting == "busy")


class _Room:
    """The number of robots in each group that may still become unavailable."""

    def __init__(self, view: View) -> None:
        self._fleet: Mapping[str, FleetRobot] = {}
        self._down: set[str] = set()
        self._unavailable = Counter[str]()
        budget = view.rollout.strategy.disruption_budget
        if budget is None:
            return
        self._fleet = view.fleet
        self._down = down(view)
        self._unavailable = Counter(self._fleet[robot].group for robot in self._down)
        sizes = Counter(each.group for each in self._fleet.values())
        self._limits = {
            group: amount(budget.max_unavailable, size) for group, size in sizes.items()
        }

    def take(self, robots: Iterable[str]) -> bool:
        """Count robots as unavailable, unless they are too many for one of their groups."""
        known = [(robot, seen.group) for robot in robots if (seen := self._fleet.get(robot))]
        # One that is down is counted already: its switch takes no other one away.
        new = Counter(group for robot, group in known if robot not in self._down)
        if any(
            self._unavailable[group] + new[group] > self._limits[group]
            for group in {group for _, group in known}
        ):
            return False
        self._unavailable.update(new)
        return True


def down(view: View) -> set[str]:
    """Return the robots of the fleet that are unavailable, or may become so at any moment."""
    moving = {robot for robot, member in view.members.items() if member.in_flight}
    return {id_ for id_, robot in view.fleet.items() if not robot.available or id_ in moving}
