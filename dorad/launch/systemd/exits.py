"""Translate systemd's exit codes and results into `Exit` and into messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.launch.model import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.launch.model import Command

_EXITED = 1
"""CLD_EXITED; 2 is killed, 3 is dumped."""

_WORKING_DIRECTORY = 200
SCHEDULER = 214
CAPABILITIES = 218
STATE_FOLDER = 238
_CONTROL_GROUP = 219
_CREDENTIALS = 243
_NOT_STARTED = {
    _WORKING_DIRECTORY: "its working directory cannot be entered",
    202: "its descriptors cannot be passed on",
    203: "it cannot be executed (does it exist, is it executable, may the node's user read it?)",
    205: "a limit cannot be set",
    SCHEDULER: "its scheduling policy cannot be set",
    206: "none of its cores can be used",
    216: "its group cannot be taken on",
    217: "its user does not exist or cannot be taken on",
    CAPABILITIES: "its capabilities cannot be set",
    _CONTROL_GROUP: "its control group cannot be set up",
    STATE_FOLDER: "its state folder cannot be made",
    _CREDENTIALS: "its secrets cannot be read; one may just have been removed",
}
"""Exit codes that systemd itself uses when it fails before it executes the program."""


def exit_of(values: Mapping[str, Any]) -> Exit | None:
    """Return how a unit's main process ended, from ExecMainCode and ExecMainStatus.

    None while it runs.
    """
    code = values.get("ExecMainCode", 0)
    status = values.get("ExecMainStatus", 0)
    if not code:
        return None
    return Exit(code=status) if code == _EXITED else Exit(signal=status)


def is_transient(values: Mapping[str, Any]) -> bool:
    """Return True if a unit failed to start for lack of resources, so a later start may succeed.

    For example, the machine has reached its limit of memory or processes.
    """
    status = values.get("ExecMainStatus")
    return values.get("Result") == "resources" or status in (_CONTROL_GROUP, _CREDENTIALS)


def why_not_started(values: Mapping[str, Any], command: Command) -> str:
    """Return why a unit failed to start, from the properties of its service."""
    status = values.get("ExecMainStatus", 0)
    if values.get("ExecMainCode") == _EXITED and status in _NOT_STARTED:
        if status == _WORKING_DIRECTORY and (user := command.identity.user):
            return (
                f"its user `{user}` may not enter {command.cwd} (move the dataflow to a"
                " folder that all users may enter, such as one in /opt)"
            )
        return _NOT_STARTED[status]
    result = values.get("Result", "unknown")
    return f"systemd reports {result!r}" + (f", status {status}" if status else "")
