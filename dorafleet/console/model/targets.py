"""What actions are done to: robots, their dataflows and nodes, alerts, rollouts."""

from __future__ import annotations

import re
import shlex
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.filters import MAX_LENGTH
from dorad.control.messages.releases import PREPARING
from dorafleet.rollout.operate import possible_acts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.control.messages import Alert, FleetRow, Param
    from dorafleet.rollout.messages import RolloutNew, RolloutRobot, RolloutSummary

UNDO_INSTANCE = "undo-instance"
"""The action that undoes a rollout on one instance."""

MAX_LISTED = 30
"""Robots that a filter names."""

EVERYWHERE = "*:"
"""How the id of an alert of several robots begins, before the cause and the subject."""


class Target(NamedTuple):
    """What an action is done to."""

    dataflow: str = ""
    """UUID or name."""
    node: str = ""
    robot: str = ""
    alert: str = ""
    title: str = ""
    """For people."""
    about: str = ""
    """For people: the alert, where the title names what it is on; or the instance of a rollout."""
    rollout: int = 0
    instance: str = ""
    """What goes back alone of the rollout: the instance, or the robot, under the cursor."""
    acts: frozenset[str] = frozenset()
    """Names of the actions that are possible for the alert, or for the rollout in its phase."""
    choices: tuple[str, ...] = ()
    """Names of the dataflows that the robot runs, to choose from while `dataflow` is empty."""
    released: bool = False
    """Whether the dataflow comes from a release, so that only rollouts start and stop it."""
    ended: bool = False
    """Whether the node has ended and is not restarted; without a node, whether the dataflow has."""
    switches: Mapping[str, Sequence[str]] = MappingProxyType({})
    """The robots that switch because of an action on a rollout, by its name."""
    param: Param | None = None
    """The parameter of the node, with the value that it has or gets."""
    plan: RolloutNew | None = None
    """The rollout that is planned."""
    note: str = ""
    """What an incident is about."""

    def __str__(self) -> str:
        return self.title or self.alert or "/".join(filter(None, (self.dataflow, self.node)))


def filter_of(robots: Sequence[str]) -> str:
    """Return the filter that only these robots pass, or the first of them if they are many."""
    names = "|".join(re.escape(robot) for robot in robots[:MAX_LISTED])
    return shlex.quote(f"robot~^({names})$")


def filter_of_alert(alert: Alert) -> str:
    """Return the filter that all robots pass that have what an alert of several is about."""
    text = shlex.quote(f"finding={alert.id.removeprefix(EVERYWHERE)}")
    # What robots say may be long; then the first of them are named.
    return text if len(text) <= MAX_LENGTH else filter_of(alert.robots)


def dataflows_of(row: FleetRow) -> tuple[str, ...]:
    """Return the names of the dataflows that a robot runs."""
    return tuple(row.dataflow.split(", ")) if row.dataflow else ()


def shown_dataflows(row: FleetRow) -> str:
    """Return the dataflows that a robot runs, with the instance of one over several machines."""
    instances = {each.rpartition("/")[2]: each for each in row.instances}
    return ", ".join(instances.get(name, name) for name in dataflows_of(row))


def with_release(target: Target, rows: Mapping[str, FleetRow]) -> Target:
    """Return a target that says whether its dataflow comes from a release.

    Of several dataflows it keeps those that do not, as choices.
    """
    robot, _, name = target.dataflow.rpartition("/")
    robot = robot or target.robot
    own = [rows[robot]] if robot in rows else [] if robot else list(rows.values())
    released = {name for row in own for name in released_on(row)}
    if target.dataflow:
        return target._replace(released=name in released)
    left = tuple(each for each in target.choices if each not in released)
    return target._replace(choices=left, released=bool(target.choices) and not left)


def released_on(row: FleetRow) -> set[str]:
    """Return the names of the dataflows of a robot that come from releases, such as `pick@3`."""
    return {label.rpartition("@")[0] for label in row.release.split(", ") if "@" in label}


def unit_of(robot: RolloutRobot) -> str:
    """Return what a robot switches with: its instance over several machines, or only itself."""
    return robot.instance or robot.robot


def on_rollout(
    rollout: RolloutSummary, robots: Sequence[RolloutRobot], cursor: str | None
) -> Target:
    """Return a rollout as a target, and of it the instance of the robot under the cursor.

    `robots` are in the order in which they get the release.
    """
    acts: set[str] = {*possible_acts(rollout.phase, paused=rollout.paused)}
    unit = next((unit_of(each) for each in robots if each.robot == cursor), "")
    back = [each for each in robots if each.goes_back]
    alone = [each for each in back if unit_of(each) == unit]
    # A canary alone can only be undone once the other robots have their turn.
    is_canary = rollout.phase in ("planned", "canary") and not all(each.batch for each in alone)
    if alone and "undo" in acts and not is_canary:
        acts.add(UNDO_INSTANCE)
    waiting = ("waiting", *PREPARING, "busy")
    title = f"rollout {rollout.rollout} of {rollout.name}"
    return Target(
        unit and f"{unit}/{rollout.dataflow}",
        title=f"{title}, {rollout.size} robot{'' if rollout.size == 1 else 's'}",
        about=f"{unit} in {title}",
        rollout=rollout.rollout,
        instance=unit,
        acts=frozenset(acts),
        switches={
            "promote": [each.robot for each in robots if each.state in waiting],
            "undo": [each.robot for each in back],
            UNDO_INSTANCE: [each.robot for each in alone],
        },
    )


def in_common(targets: Sequence[Target]) -> list[str]:
    """Return the dataflows that all of these robots run."""
    first, *others = targets
    return [name for name in first.choices if all(name in each.choices for each in others)]


def on_robot(robot: str | None, dataflow: str) -> str:
    """Return how a coordinator is asked about a dataflow of a robot; see its `onerobot`."""
    return f"{robot}/{dataflow}" if robot and dataflow else dataflow
