"""Inputs that select among their queued messages: `max_rate_hz`, and synchronised inputs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.node.inputs import NEVER_NS, ChoosyInput, RingInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.node.clock import Clock
    from dorad.node.events import Event
    from dorad.shm.picking import PickingInlet


class Match(NamedTuple):
    """The result of a search for a set.

    The first `passed[i]` messages of input i match nothing, now or later. If `complete`, the next
    message of each input belongs to the set.
    """

    passed: tuple[int, ...]
    complete: bool


def match(waiting: Sequence[Sequence[int]], tolerance: int) -> Match:
    """Search for the first set of one message from each input, all sent within `tolerance`.

    `waiting` holds the times of the queued messages of each input, oldest first, in the unit of
    `tolerance`. The oldest message of a set is skipped if its successor makes the set tighter.
    """
    at = [0] * len(waiting)
    while all(place < len(times) for place, times in zip(at, waiting, strict=True)):
        fronts = [times[place] for place, times in zip(at, waiting, strict=True)]
        oldest = min(range(len(fronts)), key=fronts.__getitem__)
        spread = max(fronts) - fronts[oldest]
        if spread > tolerance or _is_tighter(fronts, oldest, waiting[oldest], at[oldest], spread):
            # The input with the newest message only gets newer ones.
            at[oldest] += 1
            continue
        return Match(tuple(at), True)
    return Match(tuple(at), False)


def _is_tighter(
    fronts: Sequence[int], oldest: int, times: Sequence[int], place: int, spread: int
) -> bool:
    """Return True if the set is tighter with the successor of its oldest message."""
    if place + 1 == len(times):
        return False
    others = [front for index, front in enumerate(fronts) if index != oldest]
    after = [*others, times[place + 1]]
    return max(after) - min(after) < spread


_log = logging.getLogger(__name__)

PARTNER_TIMEOUT_NS = 500_000_000
"""How long the last messages of a closed synchronised input wait for matching ones."""

MAX_SEARCHED = 64
"""Maximum number of messages of one input that a search for a set examines."""


def make(
    item: dict[str, Any],
    served: RingInput,
    inlet: PickingInlet,
    clock: Clock,
    groups: dict[str, SyncGroup],
) -> ChoosyInput:
    """Return the input that selects from a ring; `served` takes the selected messages.

    `item` is the daemon's description of the ring. `groups` holds all synchronised sets so far.
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
    """An input with a maximum rate.

    Each time it returns the newest queued message, or the oldest if it keeps all. When the node
    stops, or when the ring is removed, the queued messages follow without delay.
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
        """Return True if an event is queued and due."""
        return self.picking.ready() and self._is_due(self.clock.monotonic_ns())

    def _is_due(self, now: int) -> bool:
        return self._hurry or now >= self._due_ns

    def holds(self) -> bool:
        """Return True if a message is queued, even if it is not due yet."""
        return self.picking.ready()

    def take(self) -> Event | None:
        """Return the next event if it is due, else None."""
        inlet = self.picking
        if not inlet.ready():
            return None
        now = self.clock.monotonic_ns()
        if not self._is_due(now):
            return None
        if not self._keeps_all:
            inlet.keep_newest()
        event = self.served.take()
        if event is not None:
            self._due_ns = now + self._interval_ns
        return event

    def next_ns(self) -> int:
        """Return when the next queued message is due."""
        return self._due_ns if self.picking.ready() else NEVER_NS

    def watched(self) -> tuple[int, int] | None:
        """See `ChoosyInput`."""
        inlet = self.picking
        if inlet.ready() and not self._is_due(self.clock.monotonic_ns()):
            return None
        return (inlet.head_at, inlet.tail)

    def stop(self) -> None:
        """Return only what is queued now, without delay."""
        super().stop()
        self._hurry = True

    def leave(self) -> None:
        """Return what is queued now, without delay; then the ring no longer feeds the input."""
        super().leave()
        self._hurry = True


class _Ring:
    """A ring that feeds a synchronised input, and its HEAD at the last search."""

    __slots__ = ("inlet", "searched_to", "served")

    def __init__(self, served: RingInput, inlet: PickingInlet) -> None:
        self.served = served
        self.inlet = inlet
        self.searched_to = inlet.tail


class SyncGroup:
    """Inputs that are received together. Messages stay in their rings until they match.

    It holds no reference to its members, because a cycle would keep them after the node ends.
    """

    def __init__(self, name: str, inputs: Sequence[str], tolerance_ns: int) -> None:
        self.name = name
        self.tolerance_ns = tolerance_ns
        self.rings: dict[str, list[_Ring]] = {each: [] for each in inputs}

    def ready(self) -> bool:
        """Return True if a complete set is queued."""
        return self._search()[1] is not None

    def take(self) -> Event | None:
        """Return the next set as one event, or None; drop messages that match nothing."""
        for rings in self.rings.values():
            for ring in rings:
                ring.searched_to = ring.inlet.next_index()
        while True:
            passed, group = self._search()
            for ring, index in passed:
                ring.inlet.skip_to(index)
            if group is None:
                return None
            events = [ring.served.take() for ring, _ in group]
            if all(ring.inlet.tail == index + 1 for ring, index in group):
                return self._event([event for event in events if event is not None])
            # A producer overtook the search: one of the messages is not the one that matched.
            _log.debug("sync %s: a queue overflowed during the search", self.name)
            for (ring, _), event in zip(group, events, strict=True):
                if event is not None:
                    ring.inlet.count_dropped()

    def _search(self) -> tuple[list[tuple[_Ring, int]], list[tuple[_Ring, int]] | None]:
        """Return the index to skip to in each ring, and the rings and indexes of a set, if any."""
        lines = [_line(rings) for rings in self.rings.values()]
        matched = match([[stamp for stamp, _, _ in line] for line in lines], self.tolerance_ns)
        passed = {
            id(ring): (ring, index + 1)
            for line, count in zip(lines, matched.passed, strict=True)
            for _, index, ring in line[:count]
        }
        if not matched.complete:
            return [*passed.values()], None
        group = []
        for line, count in zip(lines, matched.passed, strict=True):
            _, index, ring = line[count]
            group.append((ring, index))
        return [*passed.values()], group

    def _event(self, events: Sequence[Event]) -> Event:
        """Return the event of a set; if a member is unreadable, return its ERROR event instead."""
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
    """Return what is queued on all rings of an input as (stamp, index, ring), oldest first."""
    line = []
    for ring in rings:
        first, stamps = ring.inlet.stamps(MAX_SEARCHED)
        line += [(stamp, first + n, ring) for n, stamp in enumerate(stamps)]
    if len(rings) > 1:
        line.sort(key=lambda each: each[0])
    return line


class SyncMember(ChoosyInput):
    """One ring that feeds a synchronised input."""

    __slots__ = ("_deadline_ns", "_group", "_ring")

    def __init__(
        self, served: RingInput, inlet: PickingInlet, clock: Clock, group: SyncGroup
    ) -> None:
        super().__init__(served, inlet, clock)
        self._group = group
        self._deadline_ns: int | None = None
        self._ring = _Ring(served, inlet)
        group.rings[served.id].append(self._ring)

    def ready(self) -> bool:
        """Return True if a complete set is queued."""
        return self._group.ready()

    def holds(self) -> bool:
        """Return True if the input must not end yet, because queued messages may still match."""
        if self._group.ready():
            return True
        if not self.picking.ready():
            return False
        now = self.clock.monotonic_ns()
        if self._deadline_ns is None:
            self._deadline_ns = now + PARTNER_TIMEOUT_NS
        return now < self._deadline_ns

    def take(self) -> Event | None:
        """Return the next set's event, or None."""
        deadline = self._deadline_ns
        event = self._group.take()
        if event is not None:
            self._deadline_ns = None
        elif deadline is not None and self.clock.monotonic_ns() >= deadline:
            # The input has ended, and no matching message came in time.
            _log.debug("sync %s: dropping the unmatched rest of %s", self._group.name, self.id)
            self._deadline_ns = None
            self.picking.discard()
        return event

    def next_ns(self) -> int:
        """Return when the wait for matching messages ends."""
        deadline = self._deadline_ns
        return NEVER_NS if deadline is None else deadline

    def watched(self) -> tuple[int, int] | None:
        """See `ChoosyInput`."""
        return (self.picking.head_at, self._ring.searched_to)

    def leave(self) -> None:
        """Remove the ring from its set; its queue is empty by now."""
        super().leave()
        self._group.rings[self.id].remove(self._ring)
