"""Every action as data: keys, palette, help, dialogs and copied commands are made from this."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dorad.control import messages as m
from dorad.control.messages.method import NeededRole
from dorad.control.paramtext import json_text
from dorad.phrases import first_of
from dorafleet.console.model.targets import UNDO_INSTANCE, Target
from dorafleet.rollout.messages import ROLLOUT_ACTS, ROLLOUT_START, RolloutAct, RolloutNew
from dorafleet.rollout.operate import Act

Kind = Literal["node", "dataflow", "box", "param", "alert", "rollout", "instance", "plan"]

RANKS: tuple[NeededRole, ...] = ("viewer", "operator", "admin")

ENDED = ("failed", "stopped")
"""States of nodes that are not restarted any more."""
NODE_FAILED = "node-failed"
"""The cause of an alert about a node that has failed for good."""

START_DATAFLOW = "start-dataflow"
"""The action for a dataflow that has ended."""

MAX_BOXES = 5
"""Black boxes that a result names."""

ID_SIZE, SHORT_ID = 64, 12
"""Characters of the id of a release, and of its beginning in commands."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that changes a robot, a dataflow or an alert."""

    key: str
    """Its key in the dialog of actions."""
    name: str
    title: str
    kind: Kind
    method: m.CallMethod[Any, Any]
    params: Callable[[Target], m.Struct]
    argv: Callable[[Target], Sequence[str]]
    """The equivalent command line."""
    warns: str = ""
    """What an operator should know before."""
    wide: bool = False
    """Whether it lets all robots of a rollout switch, so that the number of those must be typed."""
    asks: str = ""
    """What must be typed first, a value or a note; empty for nothing."""
    remark: Callable[[Any], str] = lambda _: ""
    """Returns what its result says beyond that it is done."""

    @property
    def role(self) -> NeededRole:
        """The role that it needs."""
        return self.method.role


def _node(target: Target) -> m.NodeStop:
    return m.NodeStop(node=target.node, dataflow=target.dataflow or None)


def _flow(target: Target) -> m.Stop:
    return m.Stop(dataflow=target.dataflow or None)


def _param(target: Target) -> m.ParamRef:
    return m.ParamRef(node=target.node, key=_known(target).key, dataflow=target.dataflow)


def _param_set(target: Target) -> m.ParamSet:
    known = _known(target)
    return m.ParamSet(node=target.node, key=known.key, value=known.value, dataflow=target.dataflow)


def _known(target: Target) -> m.Param:
    assert target.param is not None
    return target.param


def _planned(target: Target) -> RolloutNew:
    assert target.plan is not None
    return target.plan


def _mark(target: Target) -> m.IncidentMark:
    return m.IncidentMark(dataflow=target.dataflow or None, note=target.note)


def _mark_argv(target: Target) -> Sequence[str]:
    note = ("--note", target.note) if target.note else ()
    return ("dora", "record", "mark", "-d", target.dataflow, *note)


def _marked(result: m.IncidentMarked) -> str:
    """Return where incidents were made, and where not."""
    named = {**result.made, **{robot: f"FAILED: {why}" for robot, why in result.failed.items()}}
    texts = [f"{robot}: {text}" if robot else text for robot, text in named.items()]
    return first_of(texts, MAX_BOXES)


def _undelivered(result: m.Param) -> str:
    return "" if result.delivered else "the node is not connected; it gets the value when it starts"


def _rollout(key: str, act: Act, title: str, warns: str, *, wide: bool = False) -> Action:
    return Action(
        key,
        act,
        title,
        "rollout",
        ROLLOUT_ACTS[act],
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
        m.NODE_RESTART,
        _node,
        lambda t: ("dora", "node", "restart", t.node, "-d", t.dataflow),
        "The node stops, if it runs, and starts again. Messages in its inputs are kept.",
    ),
    Action(
        "s",
        "stop-node",
        "Stop the node",
        "node",
        m.NODE_STOP,
        _node,
        lambda t: ("dora", "node", "stop", t.node, "-d", t.dataflow),
        "The node ends, and its outputs close. A restart starts it again.",
    ),
    Action(
        "R",
        "restart-dataflow",
        "Restart the dataflow",
        "dataflow",
        m.DATAFLOW_RESTART,
        _flow,
        lambda t: ("dora", "restart", t.dataflow),
        "All nodes of the dataflow stop and start again, on all its robots.",
    ),
    Action(
        "S",
        "stop-dataflow",
        "Stop the dataflow",
        "dataflow",
        m.DATAFLOW_STOP,
        _flow,
        lambda t: ("dora", "stop", t.dataflow),
        "All nodes of the dataflow stop, on all its robots.",
    ),
    Action(
        "b",
        START_DATAFLOW,
        "Begin the ended dataflow again",
        "dataflow",
        m.DATAFLOW_RESTART,
        _flow,
        lambda t: ("dora", "restart", t.dataflow),
        "It starts as it was at its end: its file is not read again.",
    ),
    Action(
        "i",
        "mark-incident",
        "Mark an incident: keep what was recorded",
        "box",
        m.INCIDENT_MARK,
        _mark,
        _mark_argv,
        "The black box keeps the last 60 s and the next 20 s, on each robot of the dataflow.",
        asks="a note, which may be empty",
        remark=_marked,
    ),
    Action(
        "v",
        "set-param",
        "Set the value of the parameter",
        "param",
        m.PARAM_SET,
        _param_set,
        lambda t: (
            *("dora", "param", "set", t.node, _known(t).key, json_text(_known(t).value)),
            *("-d", t.dataflow),
        ),
        "The running node gets the value at once.",
        asks="value, as JSON",
        remark=_undelivered,
    ),
    Action(
        "d",
        "delete-param",
        "Delete the value of the parameter",
        "param",
        m.PARAM_DELETE,
        _param,
        lambda t: ("dora", "param", "delete", t.node, _known(t).key, "-d", t.dataflow),
        "A declared parameter returns to its default; another one is gone.",
    ),
    Action(
        "k",
        "acknowledge",
        "Acknowledge: I will handle it",
        "alert",
        m.ALERTS_ACK,
        lambda t: m.AlertAck(id=t.alert),
        lambda t: ("dorafleet", "alerts", "--ack", t.alert),
    ),
    Action(
        "u",
        "unacknowledge",
        "Take the acknowledgement back",
        "alert",
        m.ALERTS_ACK,
        lambda t: m.AlertAck(id=t.alert, undo=True),
        lambda t: ("dorafleet", "alerts", "--unack", t.alert),
    ),
    Action(
        "N",
        "start-rollout",
        "Start the rollout",
        "plan",
        ROLLOUT_START,
        _planned,
        lambda t: ("dorafleet", "rollout", "start", *selecting(_planned(t)), "--detach"),
        "The coordinator drives it as this plan says, and sends the files that it has.",
        wide=True,
        remark=lambda result: f"`:rollout {result.rollout}` follows it",
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
        "Robots that have the release, or may have it, switch back to what they had.",
        wide=True,
    ),
    Action(
        "I",
        UNDO_INSTANCE,
        "Undo the rollout on this instance only",
        "instance",
        ROLLOUT_ACTS["undo"],
        lambda t: RolloutAct(rollout=t.rollout, instances=[t.instance]),
        lambda t: ("dorafleet", "rollout", "undo", t.dataflow),
        "It switches back to what it had, when it is free. The rollout goes on with the others.",
        wide=True,
    ),
)


def allowed(role: str, needed: NeededRole) -> bool:
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
        return (
            "only rollouts start and stop what comes from a release; its nodes have actions, and "
            "`dora stop` on the robot stops it there"
        )
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
            ended = target.ended and action.name == "stop-node"
            return bool(target.node) and target.param is None and not ended
        case "dataflow":
            if target.param is not None or target.plan or target.released or target.rollout:
                return False
            over = target.ended and not target.node
            known = bool(target.dataflow or target.choices)
            return known and over == (action.name == START_DATAFLOW)
        case "box":
            # Recorders of releases do it, too.
            over = target.ended and not target.node
            own = not (target.param or target.plan or target.rollout or over)
            return own and bool(target.dataflow or target.choices)
        case "param":
            return target.param is not None
        case "plan":
            return target.plan is not None
        case "alert" | "rollout" | "instance":
            return action.name in target.acts


def selecting(plan: RolloutNew) -> list[str]:
    """Return the words by which `dorafleet plan` and `rollout start` select what a plan does."""
    # An id is a word of 64 characters; its beginning is enough, and can be read.
    words = [plan.release[:SHORT_ID] if len(plan.release) == ID_SIZE else plan.release]
    words += [word for robot in plan.robots for word in ("--robots", robot)]
    return words + [word for each in plan.labels.items() for word in ("--label", "=".join(each))]


def shown(argv: Sequence[str]) -> str:
    """Return a command line that can be pasted into a shell."""
    return shlex.join(argv)
