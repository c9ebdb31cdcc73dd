"""The gates of a switch: windows, robots at a time, budgets, leases. Pure functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dorafleet.rollout import windows
from dorafleet.rollout.strategy import amount, parallel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorafleet.rollout.model import FleetRobot, Member, Seen, View
    from dorafleet.rollout.strategy import Budget

Gate = Literal["unreachable", "files", "busy", "window", "budget", "parallel"]
"""What a robot waits for. `parallel`: others switch at the moment."""


@dataclass(slots=True)
class Passing:
    """Robots that may switch now, and why others may not."""

    robots: list[str] = field(default_factory=list)
    waiting: dict[str, Gate] = field(default_factory=dict)
    opening: float | None = None
    """When the next window opens, in seconds since 1970."""


def pass_gates(view: View, candidates: Iterable[Member], *, forward: bool) -> Passing:
    """Return which of the candidates, in their order, may switch at once.

    A switch that goes back waits for no window.
    """
    rollout, strategy = view.rollout, view.rollout.strategy
    found = Passing()
    at_once = rollout.back_at_once and not forward
    most = rollout.back_parallel if not forward else None
    free = rollout.size if at_once else parallel(strategy, rollout.size, most)
    free -= sum(member.in_flight for member in view.members.values())
    opening = next_opening(view) if forward else view.now
    room = _Room(view)
    for member in candidates:
        robot = member.robot
        seen = view.seen.get(robot)
        if seen is None or not seen.reachable:
            found.waiting[robot] = "unreachable"
        elif is_leased(seen) and strategy.busy == "wait":
            found.waiting[robot] = "busy"
        elif opening is None or opening > view.now:
            found.waiting[robot] = "window"
            found.opening = opening
        elif free <= 0:
            found.waiting[robot] = "parallel"
        elif not at_once and not room.take(robot):
            found.waiting[robot] = "budget"
        else:
            free -= 1
            found.robots.append(robot)
    return found


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

    def take(self, robot: str) -> bool:
        """Count a robot as unavailable, unless that is too much for its group."""
        found = self._fleet.get(robot)
        if found is None:
            return True
        if robot in self._down:
            # It is counted already: its switch takes no other one away.
            return self._unavailable[found.group] <= self._limits[found.group]
        if self._unavailable[found.group] >= self._limits[found.group]:
            return False
        self._unavailable[found.group] += 1
        self._down.add(robot)
        return True


def down(view: View) -> set[str]:
    """Return the robots of the fleet that are unavailable, or may become so at any moment."""
    moving = {robot for robot, member in view.members.items() if member.in_flight}
    return {id_ for id_, robot in view.fleet.items() if not robot.available or id_ in moving}
