"""How long a receiver looks at its rings before it blocks.

Looking saves the 30 to 60 us of a wake-up when the next message is that near, and only burns the
core when it is not. So the budget follows what waits have lately been worth.
"""

from __future__ import annotations

from dorad.shm.steps import twin

WOULD_HAVE_PAID_NS = 150_000
"""A blocked wait shorter than this was mostly the wake-up: looking would have been faster."""

MAX_COOLDOWN = 1024


@twin
class SpinState:
    """The fields of a spinning budget."""

    __slots__ = ("_cooldown", "_limit_ns", "_penalty", "budget_ns")


class Spin(SpinState):
    """The spinning budget of one receiver. Pure: told what happened, it says what to do next.

    A successful look keeps the full budget. A failed one halves it; at the bottom, spinning stops,
    and is tried again only after a number of short waits that doubles with each fruitless try.
    """

    __slots__ = ()

    def __init__(self, limit_us: int) -> None:
        """Start without a budget; `limit_us` bounds it, 0 turns spinning off for good."""
        self._limit_ns = limit_us * 1000
        self.budget_ns = 0
        self._cooldown = 0
        self._penalty = 1

    def found(self) -> None:
        """Record that looking found a message within the budget."""
        self.budget_ns = self._limit_ns
        self._penalty = 1

    def blocked(self, waited_ns: int) -> None:
        """Record that the receiver had to block and that a message came `waited_ns` after asking.

        A look that failed before the block counts as failed, whatever the wait's length.
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
