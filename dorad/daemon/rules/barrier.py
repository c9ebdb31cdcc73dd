"""The start barrier: no node gets an event before all have called `Node()`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable


class Phase(StrEnum):
    """Whether `Node()` blocks, returns or raises."""

    WAITING = "waiting"
    OPEN = "open"
    POISONED = "poisoned"


class Barrier(Struct, frozen=True):
    """The nodes still awaited; the cohort is every node this machine starts itself."""

    pending: frozenset[str]
    waiting: frozenset[str] = frozenset()
    """Nodes that called `Node()` and have not ended."""
    phase: Phase = Phase.WAITING
    root_cause: str | None = None
    """The node that poisoned the start."""

    @classmethod
    def of(cls, cohort: Iterable[str]) -> Barrier:
        """Return the barrier of a cohort; with nobody to wait for it is open."""
        return cls(frozenset(cohort))._settled()

    def connected(self, node: str) -> Barrier:
        """Return the barrier after `node` called `Node()`."""
        if self.phase is not Phase.WAITING or node not in self.pending:
            return self
        return replace(
            self, pending=self.pending - {node}, waiting=self.waiting | {node}
        )._settled()

    def ended(self, node: str) -> Barrier:
        """Return the barrier after `node` ended for good; one that is restarted has not.

        A node that ends before it called `Node()` poisons the start, unless no other is there to
        be started. One that had called it is simply no longer waited with.
        """
        if self.phase is not Phase.WAITING:
            return self
        rest = replace(self, pending=self.pending - {node}, waiting=self.waiting - {node})
        if node in self.pending and (rest.pending or rest.waiting):
            return replace(rest, phase=Phase.POISONED, root_cause=node)
        return rest._settled()

    def forced(self) -> Barrier:
        """Return the barrier after a stop: it opens, so that every node can see its STOP."""
        return replace(self, phase=Phase.OPEN) if self.phase is Phase.WAITING else self

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "pending": sorted(self.pending),
            "waiting": sorted(self.waiting),
            "phase": str(self.phase),
            "culprit": self.root_cause,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Barrier:
        """Return what `to_json` was made of."""
        return cls(
            frozenset(kept["pending"]),
            frozenset(kept["waiting"]),
            Phase(kept["phase"]),
            kept["culprit"],
        )

    def _settled(self) -> Barrier:
        return self if self.pending else replace(self, phase=Phase.OPEN)
