"""Inputs that do not give whatever waits: those with `max_rate_hz`, and synchronised ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dorad.node.inputs import NEVER_NS, ChoosyInput
from dorad.node.matching import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.node.clock import Clock
    from dorad.node.events import Event
    from dorad.node.inputs import RingInput
    from dorad.shm.picking import PickingInlet

_monotonic_ns = time.monotonic_ns

PATIENCE_NS = 500_000_000
"""The end of a synchronised input waits so long for partners of what still waits there."""

MAX_LOOKED_AT = 64
"""Messages of one input that a search for a set looks at."""


def make(
    item: dict[str, Any],
    served: RingInput,
    inlet: PickingInlet,
    clock: Clock,
    groups: dict[str, SyncGroup],
) -> ChoosyInput:
    """Return what chooses from a ring that the daemon describes so, and what `served` takes of it.

    `groups` has all sets so far.
    """
    sync = item.get("sync")
    if sync is not None:
        group = groups.get(sync["name"])
        if group is None:
            group = groups[sync["name"]] = SyncGroup(
                sync["name"], sync["inputs"], sync["tolerance_ns"]
            )
        return SyncMember(served, inlet, clock, group)
    return PacedInput(served, inlet, clock, item["max_rate_hz"], keeps_all=item["keeps_all"])


class PacedInput(ChoosyInput):
    """An input that gives a message at most so often: the newest then, or in turn if it keeps all.

    What waits when its node is stopped, or when nothing more can come over its ring, is given at
    once.
    """

    __slots__ = ("_due_ns", "_hurry", "_interval_ns", "_keeps_all")

    def __init__(
        self,
        served: RingInput,
        inlet: PickingInlet,
        clock: Clock,
        rate_hz: float,
        *,
        keeps_all: bool,
    ) -> None:
        super().__init__(served, inlet, clock)
        self._interval_ns = round(1e9 / rate_hz)
        self._keeps_all = keeps_all
        self._due_ns = 0
        self._hurry = False

    def ready(self) -> bool:
        """Tell whether an event waits, and its time has come."""
        return self.picking.ready() and self._is_due(_monotonic_ns())

    def _is_due(self, now: int) -> bool:
        return self._hurry or now >= self._due_ns

    def holds(self) -> bool:
        """Tell whether something waits, even if its time has not come."""
        return self.picking.ready()

    def take(self) -> Event | None:
        """Return the next event if its time has come, else None."""
        inlet = self.picking
        if not inlet.ready():
            return None
        now = _monotonic_ns()
        if not self._is_due(now):
            return None
        if not self._keeps_all:
            inlet.keep_newest()
        event = self.served.take()
        if event is not None:
            self._due_ns = now + self._interval_ns
        return event

    def next_ns(self) -> int:
        """Return when what waits may be given."""
        return self._due_ns if self.picking.ready() else NEVER_NS

    def watched(self) -> tuple[int, int] | None:
        """See `ChoosyInput`."""
        inlet = self.picking
        if inlet.ready() and not self._is_due(_monotonic_ns()):
            return None
        return (inlet.head_at, inlet.tail)

    def stop(self) -> None:
        """Give only what is queued by now, and at once."""
        super().stop()
        self._hurry = True

    def leave(self) -> None:
        """Give what is queued by now, at once, and then be no part of the input any more."""
        super().leave()
        self._hurry = True


class _Ring:
    """A ring that feeds a synchronised input, and what its HEAD was when it was last looked at."""

    __slots__ = ("inlet", "looked_at", "served")

    def __init__(self, served: RingInput, inlet: PickingInlet) -> None:
        self.served = served
        self.inlet = inlet
        self.looked_at = inlet.tail


class SyncGroup:
    """Inputs that are received together. Messages wait in their rings until they match.

    It refers to no member: what a node has must go with its last reference.
    """

    def __init__(self, name: str, inputs: Sequence[str], tolerance_ns: int) -> None:
        self.name = name
        self.tolerance_ns = tolerance_ns
        self.rings: dict[str, list[_Ring]] = {each: [] for each in inputs}

    def ready(self) -> bool:
        """Tell whether a set waits."""
        return self._search()[1] is not None

    def take(self) -> Event | None:
        """Return the next set as an event, or None; pass over what matches nothing."""
        for rings in self.rings.values():
            for ring in rings:
                ring.looked_at = ring.inlet.seen()
        while True:
            passed, found = self._search()
            for ring, index in passed:
                ring.inlet.pass_to(index)
            if found is None:
                return None
            events = [ring.served.take() for ring, _ in found]
            if all(ring.inlet.tail == index + 1 for ring, index in found):
                return self._event([event for event in events if event is not None])
            # A producer has lapped us, and one of them is another than we looked at.
            for (ring, _), event in zip(found, events, strict=True):
                if event is not None:
                    ring.inlet.disown()

    def _search(self) -> tuple[list[tuple[_Ring, int]], list[tuple[_Ring, int]] | None]:
        """Return up to where to pass over what waits, and what makes a set: rings and indexes."""
        lines = [_line(rings) for rings in self.rings.values()]
        matched = match([[stamp for stamp, _, _ in line] for line in lines], self.tolerance_ns)
        passed = {
            id(ring): (ring, index + 1)
            for line, count in zip(lines, matched.passed, strict=True)
            for _, index, ring in line[:count]
        }
        if not matched.found:
            return [*passed.values()], None
        found = []
        for line, count in zip(lines, matched.passed, strict=True):
            _, index, ring = line[count]
            found.append((ring, index))
        return [*passed.values()], found

    def _event(self, events: Sequence[Event]) -> Event:
        """Return the event of a set; one that cannot be read spoils it, and is the event itself."""
        for event in events:
            if event["type"] != "INPUT":
                return event
        return {
            "kind": "dora",
            "type": "INPUT",
            "id": self.name,
            "value": {event["id"]: event["value"] for event in events},
            "metadata": {event["id"]: event["metadata"] for event in events},
        }


def _line(rings: Sequence[_Ring]) -> list[tuple[int, int, _Ring]]:
    """What waits on all rings of an input, as (stamp, index, ring), in the order of sending."""
    found = []
    for ring in rings:
        first, stamps = ring.inlet.stamps(MAX_LOOKED_AT)
        found += [(stamp, first + n, ring) for n, stamp in enumerate(stamps)]
    if len(rings) > 1:
        found.sort(key=lambda each: each[0])
    return found


class SyncMember(ChoosyInput):
    """One ring that feeds a synchronised input."""

    __slots__ = ("_group", "_patient_until_ns", "_ring")

    def __init__(
        self, served: RingInput, inlet: PickingInlet, clock: Clock, group: SyncGroup
    ) -> None:
        super().__init__(served, inlet, clock)
        self._group = group
        self._patient_until_ns: int | None = None
        self._ring = _Ring(served, inlet)
        group.rings[served.id].append(self._ring)

    def ready(self) -> bool:
        """Tell whether a set waits."""
        return self._group.ready()

    def holds(self) -> bool:
        """Tell whether the end of the input has to wait for what is here."""
        if self._group.ready():
            return True
        if not self.picking.ready():
            return False
        now = _monotonic_ns()
        if self._patient_until_ns is None:
            self._patient_until_ns = now + PATIENCE_NS
        return now < self._patient_until_ns

    def take(self) -> Event | None:
        """Return the next set's event, or None."""
        until = self._patient_until_ns
        event = self._group.take()
        if event is not None:
            self._patient_until_ns = None
        elif until is not None and _monotonic_ns() >= until:
            # The input has ended, and nobody has sent what would have matched.
            self._patient_until_ns = None
            self.picking.discard()
        return event

    def next_ns(self) -> int:
        """Return when the patience for partners of what waits is over."""
        until = self._patient_until_ns
        return NEVER_NS if until is None else until

    def watched(self) -> tuple[int, int] | None:
        """See `ChoosyInput`."""
        return (self.picking.head_at, self._ring.looked_at)

    def leave(self) -> None:
        """Be no part of the input any more; nothing is queued by now."""
        super().leave()
        self._group.rings[self.id].remove(self._ring)
