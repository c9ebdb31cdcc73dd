"""What holds for a node and must be known to every process of it: state, not a list of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MANUAL = "MANUAL"

Fact = tuple[str, dict[str, Any]]
"""A packet's kind and fields."""


class NodeFacts:
    """The facts that a node's process is told, and told again whenever another one takes its place.

    A packet to a process that is dead already, though nobody has noticed, is lost; what holds is
    not.
    """

    def __init__(self, facts_of: Iterator[Fact] | list[Fact] | None = None) -> None:
        self._facts: dict[tuple[str, str], Fact] = {}
        for kind, fields in facts_of or ():
            self._facts[_key(kind, fields)] = (kind, fields)

    def __iter__(self) -> Iterator[Fact]:
        """Give the facts in the order in which they came to hold, a stop last."""
        yield from sorted(self._facts.values(), key=lambda fact: fact[0] == "stop")

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, kind: str, fields: dict[str, Any]) -> bool:
        """Let a fact hold; False if it did already."""
        key = _key(kind, fields)
        fact = (kind, fields)
        if self._facts.get(key) == fact:
            return False
        self._facts[key] = fact
        return True

    def drop(self, kind: str, of: str = "") -> bool:
        """Let a fact about an input or a source hold no longer; False if it did not."""
        return self._facts.pop((kind, of), None) is not None

    def drop_manual_stop(self) -> None:
        """Forget a stop that was meant for one process: another one takes its place."""
        fact = self._facts.get(("stop", ""))
        if fact is not None and fact[1]["reason"] == MANUAL:
            del self._facts["stop", ""]


def _key(kind: str, fields: dict[str, Any]) -> tuple[str, str]:
    of = fields.get("input") or fields.get("source_node_id") or fields.get("operator")
    return kind, of or ""
