"""How long a receiver spins on its rings before it blocks.

Spinning saves the 30 to 60 us of a wake-up if the next message comes that soon, and only burns the
core if it does not. So the budget follows how much the last waits would have gained.
"""

from __future__ import annotations

from dorad.shm.layout import MAX_COOLDOWN, WOULD_HAVE_PAID_NS
from dorad.shm.steps import twin


@twin
class SpinState:
    """The fields of a spinning budget."""

    __slots__ = ("_cooldown", "_limit_ns", "_penalty", "budget_ns")


class Spin(SpinState):
    """The spinning budget of one receiver. Pure: fed with outcomes, it sets `budget_ns`.

    A successful spin keeps the full budget. A failed one halves it. Below an eighth, spinning
    stops, and is tried again only after a number of short waits that doubles with each failure.
    """

    __slots__ = ()

    def __init__(self, limit_us: int) -> None:
        """Start without a budget; `limit_us` is its upper bound, 0 turns spinning off."""
        self._limit_ns = limit_us * 1000
        self.budget_ns = 0
        self._cooldown = 0
        self._penalty = 1

    def found(self) -> None:
        """Record that a spin found a message within the budget."""
        self.budget_ns = self._limit_ns
        self._penalty = 1

    def blocked(self, waited_ns: int) -> None:
        """Record that the receiver blocked, and that a message came `waited_ns` after its call.

        A spin before the block counts as failed, however short the wait was.
        """
        if self.budget_ns:
            self.budget_ns //= 2
            if self.budget_ns < self._limit_ns // 8:
                self.budget_ns = 0
                self._cooldown = self._penalty
                self._penalty = min(self._penalty * 2, MAX_COOLDOWN)
        elif waited_ns < WOULD_HAVE_PAID_NS:
            if self._cooldown > 0:
                self._cooldown -= 1
            else:
                self.budget_ns = self._limit_ns
