"""Which events of a dataflow make a black box keep an incident, without being asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.record.incidents import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KNOWN = 1000
_NOTE_LENGTH = 1000


def reason_for(what: str, value: Mapping[str, Any]) -> str | None:
    """Return why an event is worth an incident; None if it is not.

    These are nodes that fail, whether or not they are started again, and inputs that break.
    """
    failed = what == "node-failed" or (what == "node-restarting" and value.get("failed") is True)
    if not failed and what != "input-broken":
        return None
    return f"node {value.get('node')}: {value.get('text')}"[:_NOTE_LENGTH]


class Triggers:
    """Makes one mark of many similar events: a node may crash every second."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], int] = {}

    def mark(self, what: str, value: Mapping[str, Any], now_ns: int) -> Mark | None:
        """Return the incident that an event asks for at `now_ns`, in ns since 1970.

        None if it asks for none, or if the last incident of the same node has not ended.
        """
        reason = reason_for(what, value)
        if reason is None:
            return None
        key = (what, str(value.get("node")))
        made = Mark(now_ns, note=reason, source=what)
        if now_ns <= self._until.get(key, 0) <= made.end_ns:
            return None
        if len(self._until) >= MAX_KNOWN:
            self._until.clear()
        self._until[key] = made.end_ns
        return made
