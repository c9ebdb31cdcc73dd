"""Every action as data: keys, palette, help, dialogs and copied commands are made from this."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.control import messages as m
from dorafleet.coordinator.messages import METHODS as COORDINATOR_METHODS
from dorafleet.rollout.messages import RolloutAct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.control.messages import FleetRow
    from dorafleet.rollout.operate import Act

Role = Literal["viewer", "operator", "admin"]
Kind = Literal["node", "dataflow", "alert", "rollout"]

RANKS: tuple[Role, ...] = ("viewer", "operator", "admin")

ENDED = ("failed", "stopped")
"""States of nodes that are not restarted any more."""
NODE_FAILED = "node-failed"
"""The cause of an alert about a node that has failed for good."""

METHODS = COORDINATOR_METHODS
"""What a coordinator may be asked; a daemon knows a part of it."""


class Target(NamedTuple):
    """What an action is done to."""

    dataflow: str = ""
    """UUID or name."""
    node: str = ""
    robot: str = ""
    alert: str = ""
    title: str = ""
    """For people."""
    rollout: int = 0
    acts: frozenset[str] = frozenset()
    """Names of the actions that are possible for the alert, or for the rollout in its phase."""
    choices: tuple[str, ...] = ()
    """Names of the dataflows that the robot runs, to choose from while `dataflow` is empty."""
    released: bool = False
    """Whether the dataflow comes from a release, so that only rollouts start and stop it."""
    ended: bool = False
    """Whether the node has ended and is not restarted."""
    size: int = 1
    """The number of robots that a rollout has."""

    def __str__(self) -> str:
        return self.title or self.alert or "/".join(filter(None, (self.dataflow, self.node)))


@dataclass(frozen=True, slots=True)
class Action:
    """Something that changes a robot, a dataflow or an alert."""

    key: str
    """Its key in the dialog of actions."""
    name: str
    title: str
    kind: Kind
    method: str
    role: Role
    params: Callable[[Target], m.Struct]
    argv: Callable[[Target], Sequence[str]]
    """The equivalent command line."""
    warns: str = ""
    """What an operator should know before."""
    wide: bool = False
    """Whether it lets all robots of a rollout switch, so that their number must be typed."""


def _node(target: Target) -> m.NodeStop:
    return m.NodeStop(node=target.node, dataflow=target.dataflow or None)


def _flow(target: Target) -> m.Stop:
    return m.Stop(dataflow=target.dataflow or None)


def _rollout(key: str, act: Act, title: str, warns: str, *, wide: bool = False) -> Action:
    return Action(
        key,
        act,
        title,
        "rollout",
        f"rollout.{act}",
        "operator",
        lambda t: RolloutAct(rollout=t.rollout),
        lambda t: ("dorafleet", "rollout", act, str(t.rollout)),
        warns,
        wide,
    )


ACTIONS: tuple[Action, ...] = (
    Action(
        "r",
        "restart-node",
        "Restart the node",
        "node",
        "node.restart",
        "operator",
        _node,
        lambda t: ("dora", "node", "restart", t.node, "-d", t.dataflow),
        "The node stops, if it runs, and starts again. Messages in its inputs are kept.",
    ),
    Action(
        "s",
        "stop-node",
        "Stop the node",
        "node",
        "node.stop",
        "operator",
        _node,
        lambda t: ("dora", "node", "stop", t.node, "-d", t.dataflow),
        "The node ends, and its outputs close. A restart starts it again.",
    ),
    Action(
        "R",
        "restart-dataflow",
        "Restart the dataflow",
        "dataflow",
        "dataflow.restart",
        "operator",
        _flow,
        lambda t: ("dora", "restart", t.dataflow),
        "All nodes of the dataflow stop and start again, on all its robots.",
    ),
    Action(
        "S",
        "stop-dataflow",
        "Stop the dataflow",
        "dataflow",
        "dataflow.stop",
        "operator",
        _flow,
        lambda t: ("dora", "stop", t.dataflow),
        "All nodes of the dataflow stop, on all its robots.",
    ),
    Action(
        "k",
        "acknowledge",
        "Acknowledge: I will handle it",
        "alert",
        "alerts.ack",
        "operator",
        lambda t: m.AlertAck(id=t.alert),
        lambda t: ("dorafleet", "alerts", "--ack", t.alert),
    ),
    Action(
        "u",
        "unacknowledge",
        "Take the acknowledgement back",
        "alert",
        "alerts.ack",
        "operator",
        lambda t: m.AlertAck(id=t.alert, undo=True),
        lambda t: ("dorafleet", "alerts", "--unack", t.alert),
    ),
    _rollout(
        "p",
        "pause",
        "Pause the rollout",
        "Robots get no further orders; those that switch now continue to their verdict.",
    ),
    _rollout("c", "resume", "Continue the rollout", "Robots get orders again."),
    _rollout(
        "m",
        "promote",
        "Promote the rollout",
        "The canaries are confirmed: the other robots get the release.",
        wide=True,
    ),
    _rollout(
        "A",
        "abort",
        "Abort the rollout",
        "No further robot switches. Those that have switched keep the release.",
    ),
    _rollout(
        "U",
        "undo",
        "Undo the rollout",
        "Every robot that got the release switches back to what it had.",
        wide=True,
    ),
)


def allowed(role: str, needed: Role) -> bool:
    """Return True if a role is enough. A server that does not say the role decides itself."""
    if not role:
        return True
    return role in RANKS and RANKS.index(role) >= RANKS.index(needed)


def actions_for(targets: Sequence[Target], role: str, *, readonly: bool) -> list[Action]:
    """Return the actions that are possible for all of these targets."""
    return [] if readonly else [a for a in _fitting(targets) if allowed(role, a.role)]


def why_no_action(targets: Sequence[Target], role: str, *, readonly: bool) -> str:
    """Return why nothing can be done to these targets, and what would change that."""
    fitting = _fitting(targets)
    if not fitting and any(each.released for each in targets):
        return "only rollouts start and stop what comes from a release; its nodes have actions"
    if not fitting:
        return "there is no action for what is chosen here"
    titles = ", ".join(action.title.partition(":")[0] for action in fitting)
    if readonly:
        return f"this console was started with --readonly, so it does not offer: {titles}"
    needed = min((action.role for action in fitting), key=RANKS.index)
    return f"your role here is {role}; it takes {needed} to do this: {titles}"


def _fitting(targets: Sequence[Target]) -> list[Action]:
    """Return the actions that are possible for all of these targets, for any role."""
    return [a for a in ACTIONS if targets and all(_fits(a, each) for each in targets)]


def _fits(action: Action, target: Target) -> bool:
    match action.kind:
        case "node":
            return bool(target.node) and not (target.ended and action.name == "stop-node")
        case "dataflow":
            return not target.released if target.dataflow else bool(target.choices)
        case "alert" | "rollout":
            return action.name in target.acts


def shown(argv: Sequence[str]) -> str:
    """Return a command line that can be pasted into a shell."""
    return shlex.join(argv)


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


def in_common(targets: Sequence[Target]) -> list[str]:
    """Return the dataflows that all of these robots run."""
    first, *others = targets
    return [name for name in first.choices if all(name in each.choices for each in others)]


def on_robot(robot: str | None, dataflow: str) -> str:
    """Return how a coordinator is asked about a dataflow of a robot; see its `onerobot`."""
    return f"{robot}/{dataflow}" if robot and dataflow else dataflow
