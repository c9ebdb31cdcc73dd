"""The role that a client needs for each method."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.peer import PeerRole
    from dorad.control.server import Call, Handler, StreamHandler

Needed = Literal["viewer", "operator", "admin", "enrolling"]
"""`enrolling` allows a robot that has a token for its enrolment, and admins."""

ROLES: Mapping[str, Needed] = {
    "access.list": "admin",
    "access.revoke": "admin",
    "alerts.ack": "operator",
    "alerts.past": "viewer",
    "alerts.receivers": "viewer",
    "alerts.test": "operator",
    "alerts.watch": "viewer",
    "audit.acknowledge": "admin",
    "audit.read": "viewer",
    "audit.verify": "viewer",
    "coordinator.backup": "admin",
    "coordinator.shutdown": "admin",
    "coordinator.status": "viewer",
    "daemon.shutdown": "admin",
    "daemon.status": "viewer",
    "dataflow.clean": "operator",
    "dataflow.enable": "operator",
    "dataflow.explain": "operator",
    "dataflow.info": "viewer",
    "dataflow.list": "viewer",
    "dataflow.open": "operator",
    "dataflow.restart": "operator",
    "dataflow.start": "operator",
    "dataflow.stop": "operator",
    "dataflow.update": "operator",
    "dataflow.wait": "viewer",
    "desired.get": "viewer",
    "desired.set": "operator",
    "drift.list": "viewer",
    "enrol.sign": "enrolling",
    "enrol.token": "admin",
    "fleet.watch": "viewer",
    "incident.list": "viewer",
    "lease.end": "operator",
    "lease.hold": "operator",
    "lease.list": "viewer",
    "lease.take": "operator",
    "logs.read": "viewer",
    "node.add": "operator",
    "node.connect": "operator",
    "node.disconnect": "operator",
    "node.info": "viewer",
    "node.list": "viewer",
    "node.remove": "operator",
    "node.replace": "operator",
    "node.restart": "operator",
    "node.stop": "operator",
    "operator.add": "admin",
    "param.delete": "operator",
    "param.get": "viewer",
    "param.list": "viewer",
    "param.set": "operator",
    "release.get": "viewer",
    "release.list": "viewer",
    "release.put": "operator",
    "robot.adopt": "admin",
    "robot.label": "operator",
    "robot.list": "viewer",
    "robot.resume": "admin",
    "robot.takeover": "admin",
    "rollout.abort": "operator",
    "rollout.journal": "viewer",
    "rollout.list": "viewer",
    "rollout.pause": "operator",
    "rollout.plan": "viewer",
    "rollout.promote": "operator",
    "rollout.refuse": "operator",
    "rollout.resume": "operator",
    "rollout.start": "operator",
    "rollout.status": "viewer",
    "rollout.undo": "operator",
    "rollout.watch": "viewer",
    "token.create": "admin",
    "top": "viewer",
    "top.watch": "viewer",
    "topic.list": "viewer",
    "topic.publish": "operator",
    "topic.subscribe": "viewer",
    "topic.watch": "viewer",
    "watch": "viewer",
}
"""Every method of a coordinator. A method that is missing here is for admins only."""

_RANKS = ("viewer", "operator", "admin")


def may_call(role: PeerRole, method: str) -> bool:
    """Return True if a peer with this role may call a method."""
    needed = ROLES.get(method, "admin")
    if needed == "enrolling":
        return role in {"enrolling", "admin"}
    return role in _RANKS and _RANKS.index(role) >= _RANKS.index(needed)


def check_role(call: Call) -> None:
    """Raise ControlError if the peer's role does not allow its call."""
    if may_call(call.peer.role, call.method):
        return
    raise ControlError(
        "refused",
        f"`{call.method}` needs the role {ROLES.get(call.method, 'admin')}; "
        f"`{call.peer.name}` has the role {call.peer.role}",
        "an admin can give you another role: `dorafleet operator add` or `dorafleet token create`",
    )


def with_role_check(
    handlers: Mapping[str, Handler | StreamHandler],
) -> dict[str, Handler | StreamHandler]:
    """Return handlers that first check the role of the peer."""
    return {method: partial(_checked, handler) for method, handler in handlers.items()}


def _checked(handler: Handler | StreamHandler, call: Call, params: Any) -> Any:
    check_role(call)
    return handler(call, params)
