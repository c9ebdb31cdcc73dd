"""Which inputs of a dataflow begin to lose messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.daemon.measuring.outputs import output_name
from dorad.daemon.measuring.rates import told
from dorad.daemon.rules.loss import Loss, loss_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.daemon.broker.readings import EdgeCounters


class Losing(NamedTuple):
    """An input that begins to lose messages."""

    dropped: float
    """Per second."""
    rate: float
    """Messages per second."""
    output: str
    """`node/output`"""
    node: str
    """The receiver."""


class LossWatch:
    """The losses of the inputs of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], object] = {}
        self._losses: dict[tuple[str, str], Loss] = {}
        self._told: dict[tuple[str, str], float] = {}

    def add(self, at: float, counters: Iterable[EdgeCounters], nodes: Mapping[str, object]) -> None:
        """Add a sample; see `OutputWatch.add`.

        An input with `queue_size` 1 or a maximum rate wants the newest message: it loses none.
        """
        parts, losses = self._parts, self._losses
        self._parts, self._losses = {}, {}
        for each in counters:
            part = (nodes.get(each.source_node), nodes.get(each.node))
            if each.queue_size < 2 or each.limited or None in part:
                continue
            key = (output_name(each), f"{each.node}/{each.input}")
            before = losses.get(key) if parts.get(key) == part else None
            self._parts[key] = part
            self._losses[key] = loss_after(before or Loss(), at, each.sent, each.dropped)

    def losing(self) -> list[Losing]:
        """Return the inputs that begin to lose messages."""
        before, self._told = self._told, {}
        found: list[Losing] = []
        for key, loss in self._losses.items():
            if loss.losing:
                self._told[key] = told(loss.dropped, before.get(key))
                rate = max(self._told[key], loss.rate)
                found.append(Losing(self._told[key], rate, key[0], key[1].partition("/")[0]))
        return found
