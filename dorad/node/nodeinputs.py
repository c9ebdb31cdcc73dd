"""All inputs of a node or operator: which event comes next, and how to sleep until one comes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import events
from dorad.node.externalinput import Backlog, ExternalInput
from dorad.node.inputs import NEVER_NS, ChoosyInput, Input, RingInput, TimerInput
from dorad.node.replyinput import ReplyInput, ReplySplitter
from dorad.shm import doorbell, hops, stepping
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL, LayoutError
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.daemonevents import DaemonEvents
    from dorad.node.events import Event
    from dorad.shm.inlet import Inlet
    from dorad.shm.spin import Spin

_log = logging.getLogger(__name__)

_monotonic_ns = time.monotonic_ns

Watched = list[tuple[int, int]]
"""Words of the mailbox, and their values when the inputs were last polled."""

OUTDATED = -1
"""A number of packets that no connection has: the next poll updates the list of inputs."""


@twin
class NodeInputsState:
    """The fields of a node's inputs that polling and waiting look at each time."""

    __slots__ = (
        "_choosy",
        "_daemon_events",
        "_epoll",
        "_has_removed",
        "_mail",
        "_order",
        "_packets",
        "_rings",
        "_spin",
        "_stopped",
        "_timers",
        "_words",
        "connection",
        "ended",
    )


class NodeInputs(NodeInputsState):
    """The inputs of one node or operator, and the daemon's events about them.

    Inputs are served least recently served first, each in order; urgent events of the daemon come
    before them. Only the holder of `lock` may poll and wait; any thread may call `seems_empty`,
    `of`, `add_reply_input` and `add_external`. `ended` is True after the last event.
    """

    def __init__(
        self,
        connection: DaemonConnection,
        daemon_events: DaemonEvents,
        inputs: Sequence[Input],
        spin: Spin,
        make_input: Callable[[dict[str, Any]], Input],
    ) -> None:
        """Serve `inputs`, and those that the daemon adds later, created by `make_input`."""
        self.connection = connection
        self.lock = threading.Lock()
        self.ended = False
        self.polled_packets = OUTDATED
        """Packets that had been handled when all reply inputs were last found empty."""
        self._daemon_events = daemon_events
        self._order = list(inputs)
        self._make_input = make_input
        self._splitters: dict[str, ReplySplitter] = {}
        self._added: deque[Input] = deque()
        """External inputs that are not served yet."""
        self._list_kinds()
        self._spin = spin
        self._words = connection.box.words
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor])
        self._epoll = self._waiter.descriptor
        self._stopped = False
        self._mail = 0
        self._packets = 0

    @step
    def poll(self) -> Event | None:
        """Return the next event if there is one; set `ended` after the last."""
        connection = self.connection
        if hops.done is not None:
            hops.done(self._words)
        if self._words[BOX_MAIL] != connection.mail:
            connection.read_mail()
        # Read before the inputs: a sending thread may read packets and add events at any moment.
        self._mail = connection.mail
        if connection.packets_handled != self._packets:
            self._update()
        if self._must_hold():
            return None
        daemon_events = self._daemon_events
        if not self._stopped:
            if daemon_events.urgent:
                return self._take(daemon_events.urgent)
            if daemon_events.endings and not self._must_wait(daemon_events.endings[0]):
                return self._take(daemon_events.endings)
        order = self._order
        served = order
        if stepping.is_stepped(self._words):
            # Not by when messages come, so that it is the same each time.
            served = sorted(order, key=lambda item: (item.next_stamp(), item.ring))
        for item in served:
            event = item.take()
            if event is not None:
                if item is not order[-1]:
                    order.remove(item)
                    order.append(item)
                return event
        if self._has_removed:
            self._drop_removed()
        if self._stopped or connection.lost:
            self.ended = True
        return None

    def _must_hold(self) -> bool:
        """Return True if the node must take nothing now. At its end it takes what is queued."""
        return (
            stepping.is_held(self._words)
            and not self._stopped
            and not self._daemon_events.stopping
            and not self.connection.lost
        )

    def wait_for_turn(self) -> None:
        """Sleep until the daemon lets a node that is stepped begin; else return at once."""
        connection = self.connection
        while True:
            connection.refresh()
            self._mail = connection.mail
            if connection.packets_handled != self._packets:
                self._update()
            if not self._must_hold():
                return
            self.wait(None)

    def now_ns(self) -> int:
        """Return the time for timeouts: CLOCK_MONOTONIC, or the logical time while stepped."""
        return stepping.monotonic_ns(self._words)

    def has_passed(self, deadline: int | None) -> bool:
        """Return True if a wait until a deadline is over. It is not while the node is held."""
        return deadline is not None and self.now_ns() >= deadline and not self._must_hold()

    def poll_replies(self) -> Watched:
        """Pass on the replies that have come; return the words that change when more come.

        All other inputs stay in their queues, where their policies apply.
        """
        connection = self.connection
        connection.refresh()
        self._mail = connection.mail
        packets = connection.packets_handled
        if packets != self._packets:
            self._update()
        watched = [(BOX_MAIL, self._mail)]
        if self._must_hold():
            return [*watched, stepping.HELD]
        for item in self._replies:
            item.pump()
        for item in self._replies:
            ring = item.inlet
            watched += [(ring.head_at, ring.tail), (ring.lane_head_at, ring.lane_tail)]
        self.polled_packets = packets
        return watched

    def update_polled(self) -> bool:
        """Update `polled_packets` after a poll; return True if it has changed."""
        if self._packets == self.polled_packets:
            return False
        if any(item.inlet.moved() for item in self._replies):
            return False
        self.polled_packets = self._packets
        return True

    def is_empty(self) -> bool:
        """Return True if `poll` would return None."""
        daemon_events = self._daemon_events
        if daemon_events.changes or self._packets == OUTDATED:
            self._update_inputs()
        if self._must_hold():
            return True
        if not self._stopped and (
            daemon_events.urgent
            or (daemon_events.endings and not self._must_wait(daemon_events.endings[0]))
        ):
            return False
        return not any(item.ready() for item in self._order)

    def seems_empty(self) -> bool:
        """Return True if `poll` seems to find nothing; safe while another thread polls."""
        if self._must_hold():
            return True
        if not self._stopped and (self._daemon_events.urgent or self._daemon_events.endings):
            return False
        return not any(item.moved() for item in self._order)

    def _take(self, line: deque[Event]) -> Event:
        event = line.popleft()
        if event["type"] == "STOP":
            self._stop()
        return event

    def _must_wait(self, event: Event) -> bool:
        """Return True if messages that come before an event are still queued."""
        return event["type"] == "INPUT_CLOSED" and any(
            item.id == event["id"] and item.holds() for item in self._order
        )

    def _stop(self) -> None:
        """Serve only the messages queued now: nothing else follows STOP."""
        _log.debug("stopping: only queued messages follow")
        self._stopped = True
        for item in self._order:
            item.stop()

    def of(self, input_id: str) -> list[Input]:
        """Return the rings or the timer that feed an input."""
        return [item for item in self._order if item.id == input_id]

    def add_reply_input(self, input_id: str, splitter: ReplySplitter) -> None:
        """Pass replies on an input to `splitter`, on all its rings, present and future.

        If another thread or task holds the lock, it does so at the start of its next poll. That is
        before the reply to any request sent after this call.
        """
        if input_id in self._splitters:
            return
        self._splitters[input_id] = splitter
        self._update_soon()

    def add_external(self, queue: Backlog) -> None:
        """Serve the values in `queue` like an input; whoever adds one rings the doorbell.

        If another thread or task holds the lock, it does so at the start of its next poll.
        """
        self._added.append(ExternalInput(queue))
        self._update_soon()

    def _update_soon(self) -> None:
        self._packets = OUTDATED
        if self.lock.acquire(False):
            try:
                self._update_inputs()
            finally:
                self.lock.release()

    def _update(self) -> None:
        """Handle what new packets and reply inputs change."""
        connection = self.connection
        self._packets = connection.packets_handled
        self._update_inputs()
        if connection.late_outputs and not connection.catch_up():
            self._packets = OUTDATED

    def _update_inputs(self) -> None:
        """Add and remove inputs as the daemon has requested, and wrap reply inputs."""
        changes = self._daemon_events.changes
        while changes:
            packet = changes.popleft()
            ring = packet.number("ring")
            known = next((each for each in self._order if each.ring == ring), None)
            if packet.kind == "input_gone":
                if known is not None:
                    known.leave()
            elif known is None or known.removed:
                if known is not None:
                    self._order.remove(known)
                try:
                    item = self._make_input(packet.fields)
                except LayoutError as error:
                    text = f"input {packet.text('id')!r} cannot be received: {error}"
                    self._daemon_events.urgent.append(events.error(text))
                    continue
                if self._stopped:
                    item.stop()
                self._order.insert(0, item)
            self._list_kinds()
        while self._added:
            item = self._added.popleft()
            if self._stopped:
                item.stop()
            self._order.insert(0, item)
        if self._splitters:
            self._wrap_replies()

    def _wrap_replies(self) -> None:
        for at, item in enumerate(self._order):
            splitter = self._splitters.get(item.id)
            if splitter is None or isinstance(item, ChoosyInput | ReplyInput):
                continue
            if isinstance(item, RingInput):
                self._order[at] = ReplyInput(item, splitter)
        self._list_kinds()

    def _list_kinds(self) -> None:
        order = self._order
        self._choosy = [item for item in order if isinstance(item, ChoosyInput)]
        self._replies = [item for item in order if isinstance(item, ReplyInput)]
        self._rings = [
            item.inlet
            for item in order
            if isinstance(item, RingInput) and not isinstance(item, ChoosyInput)
        ]
        timers = [item for item in order if isinstance(item, TimerInput)]
        self._timers: list[TimerInput | ChoosyInput] = [*timers, *self._choosy]
        self._has_removed = any(item.removed for item in order)

    def _drop_removed(self) -> None:
        """Drop the inputs that the daemon has removed, whose queues are empty by now."""
        self._order = [item for item in self._order if not item.removed]
        self._list_kinds()

    def _watched(self) -> Watched:
        """Return the words that change when an event comes, with their values at the last poll.

        Call it right after a poll that found nothing, so that no change in between is missed.
        """
        if self._must_hold():
            return [stepping.HELD, (BOX_MAIL, self._mail)]
        watched = []
        for ring in self._rings:
            watched.append((ring.head_at, ring.tail))
            if ring.lane_tail:
                watched.append((ring.lane_head_at, ring.lane_tail))
        watched.append((BOX_MAIL, self._mail))
        if self._choosy:
            watched += [word for item in self._choosy if (word := item.watched()) is not None]
        return watched

    def _moved(self, watched: Watched) -> bool:
        """Return True if one of the words has changed, without a system call."""
        words = self._words
        for at, seen in watched:
            if words[at] != seen:
                return True
        return False

    def set_asleep(self, asleep: bool) -> None:
        """Set whether senders and the daemon ring the doorbell."""
        self._words[BOX_ASLEEP] = int(asleep)

    def may_sleep(self, watched: Watched, rings: Sequence[Inlet] = ()) -> bool:
        """Return True if it is safe to sleep. Call it after `set_asleep(True)`.

        Every event from now on rings the doorbell. An event that came before shows in `watched`,
        in the lane of one of `rings`, or in the count of packets: a sending thread may have read a
        packet, so that the socket is empty.
        """
        fence()
        if self._moved(watched):
            return False
        words = self._words
        for ring in () if stepping.HELD in watched else rings:
            if words[ring.lane_head_at] != ring.lane_tail:
                return False
        return self.connection.packets_handled == self._packets

    def due_ns(self, deadline: int | None = None) -> int | None:
        """Return the time of the next tick, or an earlier deadline; see `now_ns`."""
        if not self._stopped:
            for timer in self._timers:
                due = timer.next_ns()
                if due < NEVER_NS and (deadline is None or due < deadline):
                    deadline = due
        return deadline

    def seconds_until(self, due: int | None) -> float | None:
        """Return how long to sleep at most, None for no limit. Call it before `set_asleep`."""
        due = stepping.sleep_until(self._words, due)
        return None if due is None else max(0, due - _monotonic_ns()) / 1e9

    def fall_asleep(self) -> bool:
        """Have the doorbell rung from now on; return False if something has come already.

        Call it right after a poll that found nothing. `set_asleep(False)` ends it.
        """
        watched = self._watched()
        self.set_asleep(True)
        if self.may_sleep(watched, self._rings):
            return True
        self.set_asleep(False)
        return False

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors that become readable when an event comes to a node that is asleep."""
        return self.connection.bell, self.connection.descriptor

    def read_bell(self) -> None:
        """Reset the doorbell after a sleep, and read what the daemon has sent."""
        doorbell.clear(self.connection.bell)
        self.connection.read_mail()

    @step
    def wait(self, deadline: int | None, only: Watched | None = None) -> None:
        """Sleep until an event may have come, or until the deadline.

        With `only`, sleep until one of these words may have changed.
        """
        watched = self._watched() if only is None else only
        started = _monotonic_ns()
        spin = self._spin
        if spin.budget_ns:
            until = started + spin.budget_ns
            while _monotonic_ns() < until:
                if self._moved(watched):
                    spin.found()
                    return
        words = self._words
        due = self.due_ns(deadline) if only is None else deadline
        due = stepping.sleep_until(words, due)
        words[BOX_ASLEEP] = 1
        try:
            if not self.may_sleep(watched, self._rings if only is None else ()):
                return
            if due is None:
                ready = self._waiter.wait(None)
            else:
                ready = self._waiter.wait(due - _monotonic_ns(), fine=due != deadline)
        finally:
            words[BOX_ASLEEP] = 0
        connection = self.connection
        if connection.bell in ready:
            spin.blocked(_monotonic_ns() - started)
        if connection.descriptor in ready:
            connection.read_mail()
