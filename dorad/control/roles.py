"""Check that a client has the role that its method needs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.messages import AnyMethod, MethodTable
    from dorad.control.peer import PeerRole
    from dorad.control.server import Call, Handler, StreamHandler

_RANKS = ("viewer", "operator", "admin")


def may_call(role: PeerRole, method: AnyMethod) -> bool:
    """Return True if a peer with this role may call a method."""
    match method.role:
        case "coordinator":
            return False
        case "enrolling":
            return role in {"enrolling", "admin"}
    return role in _RANKS and _RANKS.index(role) >= _RANKS.index(method.role)


def check_role(call: Call, method: AnyMethod) -> None:
    """Raise ControlError if the peer's role does not allow its call."""
    if may_call(call.peer.role, method):
        return
    raise ControlError(
        "refused",
        f"`{call.method}` needs the role {method.role}; "
        f"`{call.peer}` has the role {call.peer.role}",
        "an admin can give you another role: `dorafleet operator add` or `dorafleet token create`"
        if call.peer.name
        else None,
    )


def with_role_check(
    handlers: Mapping[str, Handler | StreamHandler], methods: MethodTable
) -> dict[str, Handler | StreamHandler]:
    """Return handlers that first check the role of the peer."""
    return {name: partial(_checked, methods[name], handler) for name, handler in handlers.items()}


def _checked(method: AnyMethod, handler: Handler | StreamHandler, call: Call, params: Any) -> Any:
    check_role(call, method)
    return handler(call, params)
