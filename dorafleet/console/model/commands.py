"""Every action as data: keys, palette, help, dialogs and copied commands are made from this."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.control import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Role = Literal["viewer", "operator", "admin"]
Kind = Literal["node", "dataflow", "alert"]

RANKS: tuple[Role, ...] = ("viewer", "operator", "admin")


class Target(NamedTuple):
    """What an action is done to."""

    dataflow: str = ""
    """UUID or name."""
    node: str = ""
    robot: str = ""
    alert: str = ""
    title: str = ""
    """For people."""

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


def _node(target: Target) -> m.NodeStop:
    return m.NodeStop(node=target.node, dataflow=target.dataflow or None)


def _flow(target: Target) -> m.Stop:
    return m.Stop(dataflow=target.dataflow or None)


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
        "The node stops and starts again. Messages in its inputs are kept.",
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
        "The node stops and is not started again.",
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
        "Acknowledge: I look after it",
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
)


def allowed(role: str, needed: Role) -> bool:
    """Return True if a role is enough. A server that does not say the role decides itself."""
    if not role:
        return True
    return role in RANKS and RANKS.index(role) >= RANKS.index(needed)


def actions_for(targets: Sequence[Target], role: str, *, readonly: bool) -> list[Action]:
    """Return the actions that are possible for all of these targets."""
    if readonly or not targets:
        return []
    return [
        action
        for action in ACTIONS
        if allowed(role, action.role) and all(_fits(action.kind, each) for each in targets)
    ]


def _fits(kind: Kind, target: Target) -> bool:
    match kind:
        case "node":
            return bool(target.node)
        case "dataflow":
            return bool(target.dataflow)
    return bool(target.alert)


def shown(argv: Sequence[str]) -> str:
    """Return a command line that can be pasted into a shell."""
    return shlex.join(argv)


class Place(NamedTuple):
    """A screen that `:` can go to."""

    name: str
    title: str
    words: str
    """What may follow, for help."""


PLACES: tuple[Place, ...] = (
    Place("fleet", "All robots", "[FILTER]"),
    Place("robot", "One robot", "ROBOT"),
    Place("graph", "A dataflow as a graph", "DATAFLOW"),
    Place("top", "Nodes and edges", "[ROBOT]"),
    Place("logs", "Log lines", "[DATAFLOW [NODE]]"),
    Place("topics", "Topics of a dataflow", "DATAFLOW"),
    Place("topic", "One topic", "DATAFLOW NODE/OUTPUT"),
    Place("alerts", "What needs attention", ""),
    Place("rollout", "A rollout, by default the newest", "[NUMBER]"),
    Place("trace", "Message traces", ""),
    Place("help", "Keys and words", ""),
)


def place_of(text: str) -> tuple[str, list[str]] | str:
    """Return the screen and the words that a line after `:` names, or what is wrong with it."""
    from dorad.dataflow.nearest import did_you_mean

    try:
        found = shlex.split(text)
    except ValueError:
        return "a quotation mark is missing"
    if not found:
        return "name a screen: " + " ".join(place.name for place in PLACES)
    name, *rest = found
    names = [place.name for place in PLACES]
    matching = [each for each in names if each.startswith(name)]
    if name in names:
        matching = [name]
    if len(matching) != 1:
        hint = did_you_mean(name, names) or "there are: " + " ".join(names)
        return f"there is no screen `{name}`; {hint}"
    if matching[0] in ("graph", "logs"):  # `graph arm017/pick`
        rest = [part for word in rest for part in word.split("/", 1)]
    return matching[0], rest
