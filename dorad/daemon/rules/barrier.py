"""The start barrier: no node gets an event before all have called `Node()`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace


class Phase(StrEnum):
    """What a call of `Node()` does: block, return or raise."""

    WAITING = "waiting"
    OPEN = "open"
    ABORTED = "aborted"


HOLD = "hold"
"""The root cause if a barrier that was held has not been opened in time."""


class Barrier(Struct, frozen=True):
    """Holds back every `Node()` call until all nodes of the dataflow have made theirs.

    A `held` barrier waits also for nodes on other machines, until it is released.
    """

    pending: frozenset[str]
    """Nodes that have not called `Node()` yet."""
    waiting: frozenset[str] = frozenset()
    """Nodes that have called `Node()` and not ended."""
    phase: Phase = Phase.WAITING
    root_cause: str | None = None
    """The node whose early end aborted the start, or HOLD."""
    held: bool = False

    @classmethod
    def of(cls, nodes: Iterable[str], *, held: bool = False) -> Barrier:
        """Return the barrier for the nodes that the daemon starts.

        Without any, and not held, it is open.
        """
        return cls(frozenset(nodes), held=held)._open_if_complete()

    @property
    def complete(self) -> bool:
        """Whether only its release is missing."""
        return self.phase is Phase.WAITING and not self.pending

    def connected(self, node: str) -> Barrier:
        """Return the barrier after `node` has called `Node()`."""
        if self.phase is not Phase.WAITING or node not in self.pending:
            return self
        return replace(
            self, pending=self.pending - {node}, waiting=self.waiting | {node}
        )._open_if_complete()

    def ended(self, node: str) -> Barrier:
        """Return the barrier after `node` has ended and will not be restarted.

        A node that ends before it has called `Node()` aborts the start, unless it was the only one
        left, here and on other machines. The end of a node that has called it changes nothing for
        the others.
        """
        if self.phase is not Phase.WAITING:
            return self
        rest = replace(self, pending=self.pending - {node}, waiting=self.waiting - {node})
        if node in self.pending and (rest.pending or rest.waiting or self.held):
            return replace(rest, phase=Phase.ABORTED, root_cause=node)
        return rest._open_if_complete()

    def released(self) -> Barrier:
        """Return the barrier that is no longer held."""
        return replace(self, held=False)._open_if_complete()

    def expired(self) -> Barrier:
        """Return the barrier after it was held for too long: the start is aborted."""
        if self.phase is not Phase.WAITING:
            return self
        return replace(self, phase=Phase.ABORTED, root_cause=HOLD)

    def forced_open(self) -> Barrier:
        """Return the barrier after a stop: it opens, so that every node receives its STOP."""
        return replace(self, phase=Phase.OPEN) if self.phase is Phase.WAITING else self

    def to_json(self) -> dict[str, Any]:
        """Return the barrier as JSON-able values."""
        values: dict[str, Any] = msgspec.to_builtins(self, order="deterministic")
        return values

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Barrier:
        """Return the barrier that `to_json` was called on."""
        return msgspec.convert(data, cls)

    def _open_if_complete(self) -> Barrier:
        if self.pending or self.held or self.phase is not Phase.WAITING:
            return self
        return replace(self, phase=Phase.OPEN)
