"""What actions are done to: robots, their dataflows and nodes, alerts, rollouts."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.messages.releases import PREPARING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dorad.control.messages import FleetRow, Param
    from dorafleet.rollout.messages import RolloutNew, RolloutRobot


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
    """For people: the alert, where the title names what it is on."""
    rollout: int = 0
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

    def __str__(self) -> str:
        return self.title or self.alert or "/".join(filter(None, (self.dataflow, self.node)))


def dataflows_of(row: FleetRow) -> tuple[str, ...]:
    """Return the names of the dataflows that a robot runs."""
    return tuple(row.dataflow.split(", ")) if row.dataflow else ()


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


def switched_by(robots: Iterable[RolloutRobot]) -> dict[str, Sequence[str]]:
    """Return which robots of a rollout switch because of a promotion, and of an undo."""
    known = list(robots)
    waiting = ("waiting", *PREPARING, "busy")
    return {
        "promote": [each.robot for each in known if each.state in waiting],
        "undo": [each.robot for each in known if each.goes_back],
    }


def in_common(targets: Sequence[Target]) -> list[str]:
    """Return the dataflows that all of these robots run."""
    first, *others = targets
    return [name for name in first.choices if all(name in each.choices for each in others)]


def on_robot(robot: str | None, dataflow: str) -> str:
    """Return how a coordinator is asked about a dataflow of a robot; see its `onerobot`."""
    return f"{robot}/{dataflow}" if robot and dataflow else dataflow
