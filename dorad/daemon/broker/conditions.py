"""The conditions that hold for a node, as the packets that report them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MANUAL = "MANUAL"

Condition = tuple[str, dict[str, Any]]
"""The kind and the fields of a packet."""


class Conditions:
    """The conditions that hold for a node now, as the packets that report them.

    Every process of the node gets them after its welcome. So nothing is lost if a packet was sent
    to a process that had already ended.
    """

    def __init__(self, conditions: Iterable[Condition] = ()) -> None:
        self._all: dict[tuple[str, str], Condition] = {}
        for kind, fields in conditions:
            self._all[_key(kind, fields)] = (kind, fields)

    def __iter__(self) -> Iterator[Condition]:
        """Yield the conditions in the order of their arrival, a stop last."""
        yield from sorted(self._all.values(), key=lambda condition: condition[0] == "stop")

    def __len__(self) -> int:
        return len(self._all)

    def add(self, kind: str, fields: dict[str, Any]) -> bool:
        """Add a condition; return False if it held already."""
        key = _key(kind, fields)
        condition = (kind, fields)
        if self._all.get(key) == condition:
            return False
        self._all[key] = condition
        return True

    def holds(self, kind: str, subject: str = "") -> bool:
        """Return True if a condition of an input or a source holds."""
        return (kind, subject) in self._all

    def drop(self, kind: str, subject: str = "") -> bool:
        """Remove a condition of an input or a source; return False if it did not hold."""
        return self._all.pop((kind, subject), None) is not None

    def drop_manual_stop(self) -> None:
        """Remove a manual stop: it was meant for one process, and another one takes its place."""
        condition = self._all.get(("stop", ""))
        if condition is not None and condition[1]["reason"] == MANUAL:
            del self._all["stop", ""]


def _key(kind: str, fields: dict[str, Any]) -> tuple[str, str]:
    names = ("input", "source_node_id", "operator", "node")
    return kind, next((fields[name] for name in names if fields.get(name)), "")
