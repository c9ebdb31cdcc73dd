"""Orders of rows, and an order that rests while the operator moves the cursor."""

from collections.abc import Callable, Sequence
from typing import Any

from dorad.control.messages import FleetRow
from dorad.natural import natural
from dorafleet.console.model.fleet import STATES

REST_S = 3.0
"""Seconds for which rows keep their places after the cursor was moved."""

FLEET_ORDERS: dict[str, Callable[[FleetRow], Any]] = {
    "worst": lambda row: (
        STATES.index(row.state),
        0.0 if row.state == "ok" else -(row.since or 0.0),
        natural(row.robot),
    ),
    "name": lambda row: natural(row.robot),
    "newest": lambda row: (-(row.since or 0.0), natural(row.robot)),
    "cpu": lambda row: (-(row.cpu if row.known else -1.0), natural(row.robot)),
    "drops": lambda row: (-(row.drops if row.known else -1.0), natural(row.robot)),
}
"""Sort keys by the names of orders."""


class RestingOrder:
    """Keeps rows in their places for a while after each movement of the cursor."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._ids: list[str] = []

    def moved(self, now: float) -> None:
        """Record that the cursor has moved."""
        self._until = now + REST_S

    def arrange(self, ids: Sequence[str], now: float) -> list[str]:
        """Return ids in the order to show; new ones come last while the order rests."""
        if now < self._until:
            there = set(ids)
            kept = [each for each in self._ids if each in there]
            known = set(kept)
            self._ids = kept + [each for each in ids if each not in known]
        else:
            self._ids = list(ids)
        return self._ids
