"""The receiving half of a node: which event comes next, and how to wait for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dorad.node import events
from dorad.node.inputs import NEVER_NS, ChoosyInput, RingInput, TimerInput
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL, LayoutError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.shm.ring import Inlet
    from dorad.shm.spin import Spin

_monotonic_ns = time.monotonic_ns
_get_ident = threading.get_ident

ASYNC_TURN_NS = 1_000_000
"""A coroutine that always finds an event still gives way to others this often."""


class Receiver:
    """Serves inputs least recently served first, FIFO within one; daemon's urgent words first."""

    def __init__(
        self,
        connection: DaemonConnection,
        inputs: Sequence[RingInput | TimerInput],
        spin: Spin,
        make_input: Callable[[dict[str, Any]], RingInput | TimerInput],
    ) -> None:
        """Serve `inputs`, and those that the daemon adds, as `make_input` makes them."""
        self._connection = connection
        self._daemon_events = connection.daemon_events
        self._order = list(inputs)
        self._list_kinds()
        self._make_input = make_input
        self._spin = spin
        self._words = connection.box.words
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor])
        self._lock = threading.Lock()
        self._holder = 0
        """The thread that receives now, or 0."""
        self._stopped = False
        self._turn_ns = 0
        self._mail = 0
        self._packets = 0
        self.ended = False

    # -- what comes next ---------------------------------------------------------------------

    def _poll(self) -> Event | None:
        """Return the next event if there is one; sets `ended` after the last."""
        connection = self._connection
        if self._words[BOX_MAIL] != connection.mail:
            connection.read_mail()
        # Noted before looking: a sending thread may read mail, and post events, at any moment.
        self._mail = connection.mail
        if connection.packets_handled != self._packets:
            self._packets = connection.packets_handled
            self._change_inputs()
            if connection.late and not connection.catch_up():
                self._packets = -1
        daemon_events = self._daemon_events
        if not self._stopped:
            if daemon_events.urgent:
                return self._take(daemon_events.urgent)
            if daemon_events.endings and not self._must_wait(daemon_events.endings[0]):
                return self._take(daemon_events.endings)
        order = self._order
        for item in order:
            event = item.take()
            if event is not None:
                if item is not order[-1]:
                    order.remove(item)
                    order.append(item)
                return event
        if self._leaving:
            self._part_with_drained()
        if self._stopped or connection.lost:
            self.ended = True
        return None

    def _take(self, line: deque[Event]) -> Event:
        event = line.popleft()
        if event["type"] == "STOP":
            self._stop()
        return event

    def _must_wait(self, event: Event) -> bool:
        """Tell whether data that an event must come after still waits."""
        return event["type"] == "INPUT_CLOSED" and any(
            item.id == event["id"] and item.holds() for item in self._order
        )

    def _stop(self) -> None:
        """After STOP come only the inputs that are queued already, then the end."""
        self._stopped = True
        for item in self._order:
            item.stop()

    def is_empty(self) -> bool:
        """Tell whether `try_recv` would find nothing."""
        self._connection.refresh()
        locked = self._lock.acquire(False)
        try:
            if locked:
                self._holder = _get_ident()
            if locked and self._daemon_events.changes:
                self._change_inputs()
            daemon_events = self._daemon_events
            if not self._stopped and (
                daemon_events.urgent
                or (
                    daemon_events.endings
                    and not (locked and self._must_wait(daemon_events.endings[0]))
                )
            ):
                return False
            # While another thread receives, it alone may look closely.
            return not any(item.ready() if locked else item.moved() for item in self._order)
        finally:
            if locked:
                self._holder = 0
                self._lock.release()

    # -- which inputs there are --------------------------------------------------------------

    def _list_kinds(self) -> None:
        self._choosy = [item for item in self._order if isinstance(item, ChoosyInput)]
        self._rings = [
            item.inlet
            for item in self._order
            if isinstance(item, RingInput) and item not in self._choosy
        ]
        timers = [item for item in self._order if isinstance(item, TimerInput)]
        self._timers: list[TimerInput | ChoosyInput] = [*timers, *self._choosy]
        self._leaving = any(item.removed for item in self._order)

    def _change_inputs(self) -> None:
        """Do what the daemon has said of inputs that come and go."""
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

    def _part_with_drained(self) -> None:
        """Let go of inputs that are gone, now that what was queued on them has been received."""
        self._order = [item for item in self._order if not item.removed]
        self._list_kinds()

    # -- waiting -----------------------------------------------------------------------------

    def next(self, timeout: float | None) -> Event | None:
        """Block for the next event; None after the last. `timeout` in seconds."""
        deadline = None if timeout is None else _monotonic_ns() + int(timeout * 1e9)
        lock = self._lock
        if not lock.acquire(False):
            self.refuse_reentry()
            if timeout is None:
                lock.acquire()
            elif not lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
                return events.timed_out(timeout)
        try:
            self._holder = _get_ident()
            while True:
                event = self._poll()
                if event is not None or self.ended:
                    return event
                if deadline is not None and _monotonic_ns() >= deadline:
                    return events.timed_out(timeout or 0.0)
                self._wait(deadline)
        finally:
            self._holder = 0
            lock.release()

    def refuse_reentry(self) -> None:
        """Check that waiting for this receiver is not waiting for oneself.

        Raises:
            RuntimeError: this thread receives already, and runs a signal's handler or another task.
        """
        if self._holder == _get_ident():
            raise RuntimeError(
                "this thread is already receiving on this node: a signal handler, or another task, "
                "that runs meanwhile cannot wait here; use `try_recv`, or set a flag"
            )

    def try_recv(self) -> Event | None:
        """Return the next event if there is one."""
        if not self._lock.acquire(False):
            # Another thread is waiting in `next`: whatever comes is its own.
            return None
        try:
            self._holder = _get_ident()
            return None if self.ended else self._poll()
        finally:
            self._holder = 0
            self._lock.release()

    def drain(self) -> list[Event]:
        """Return all events that are there.

        Raises:
            RuntimeError: the last event was already received.
        """
        if self.ended:
            raise RuntimeError("the event stream is closed")
        drained = []
        while (event := self.try_recv()) is not None:
            drained.append(event)
        return drained

    def _watched(self) -> list[tuple[int, int]]:
        """Return the words that move when there is something new, and what they are now.

        Called right after a poll that found nothing, so that nothing can come between unnoticed.
        """
        watched = []
        for ring in self._rings:
            watched.append((ring.head_at, ring.tail))
            if ring.lane_tail:
                watched.append((ring.lane_head_at, ring.lane_tail))
        watched.append((BOX_MAIL, self._mail))
        if self._choosy:
            watched += [word for item in self._choosy if (word := item.watched()) is not None]
        return watched

    def _moved(self, watched: list[tuple[int, int]]) -> bool:
        """Tell, without a system call, whether one of the words has moved."""
        words = self._words
        for at, seen in watched:  # noqa: SIM110 - any() costs as much as the rest of a look
            if words[at] != seen:
                return True
        return False

    def _may_sleep(self, watched: list[tuple[int, int]], rings: Sequence[Inlet]) -> bool:
        """Tell whether there is still nothing, now that whoever brings something will wake us.

        A lane that was never used is not among the words that are watched. A sending thread may
        have read, and so taken off the socket, what the daemon has said.
        """
        fence()
        if self._moved(watched):
            return False
        words = self._words
        for ring in rings:
            if words[ring.lane_head_at] != ring.lane_tail:
                return False
        return self._connection.packets_handled == self._packets

    def _due_ns(self, deadline: int | None) -> int | None:
        """Return the nearer of the next tick and the deadline, on CLOCK_MONOTONIC."""
        if self._timers and not self._stopped:
            due = min(timer.next_ns() for timer in self._timers)
            if due < NEVER_NS:
                return due if deadline is None else min(due, deadline)
        return deadline

    def _wait(self, deadline: int | None, only: list[tuple[int, int]] | None = None) -> None:
        """Return when there may be a message, a word of the daemon, a tick, or at the deadline.

        With `only`, when one of these words may have moved, or at the deadline.
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
        words[BOX_ASLEEP] = 1
        try:
            if not self._may_sleep(watched, self._rings if only is None else ()):
                return
            due = self._due_ns(deadline) if only is None else deadline
            if due is None:
                ready = self._waiter.wait(None)
            else:
                ready = self._waiter.wait(due - _monotonic_ns(), fine=due != deadline)
        finally:
            words[BOX_ASLEEP] = 0
        connection = self._connection
        if connection.bell in ready:
            spin.blocked(_monotonic_ns() - started)
        if connection.descriptor in ready:
            connection.read_mail()

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Wait for the next event without holding up the event loop.

        Raises:
            RuntimeError: another thread or task is already waiting for events of this node.
        """
        import asyncio

        deadline = None if timeout is None else _monotonic_ns() + int(timeout * 1e9)
        if not self._lock.acquire(False):
            raise RuntimeError("another thread or task is already receiving on this node")
        try:
            self._holder = _get_ident()
            while True:
                if self._turn_ns < _monotonic_ns() - ASYNC_TURN_NS:
                    await asyncio.sleep(0)
                    self._turn_ns = _monotonic_ns()
                event = None if self.ended else self._poll()
                if event is not None or self.ended:
                    return event
                if deadline is not None and _monotonic_ns() >= deadline:
                    return events.timed_out(timeout or 0.0)
                await self._wait_async(deadline)
                self._turn_ns = _monotonic_ns()
        finally:
            self._holder = 0
            self._lock.release()

    async def _wait_async(self, deadline: int | None) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        woken: asyncio.Future[Any] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        connection = self._connection
        words = self._words
        watched = self._watched()
        descriptors = (connection.bell, connection.descriptor)
        for descriptor in descriptors:
            loop.add_reader(descriptor, wake)
        words[BOX_ASLEEP] = 1
        timer = None
        try:
            if not self._may_sleep(watched, self._rings):
                return
            due = self._due_ns(deadline)
            if due is not None:
                timer = loop.call_later(max(0.0, (due - _monotonic_ns()) / 1e9), wake)
            await woken
        finally:
            words[BOX_ASLEEP] = 0
            if timer is not None:
                timer.cancel()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
        doorbell.clear(connection.bell)
        connection.read_mail()
