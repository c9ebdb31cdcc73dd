"""Receiving that is shared between those who want events and those who wait for one answer.

One at a time looks at the rings and sleeps at the doorbell. Whoever receives events goes first, and
hands answers to those who wait for them. When nobody does, one of those who wait leads: it reads
the inputs that answers come on, and leaves all others in their queues, where their policies hold.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dorad.node.inputs import ChoosyInput, RingInput
from dorad.node.patterns.diversion import Diversion, DivertedInput, divert_input
from dorad.node.patterns.errors import ExchangeError, NoPeerError
from dorad.node.patterns.waiters import TaskWaiter, Waiter, Watch
from dorad.node.receiver import Receiver
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.inputs import TimerInput
    from dorad.shm.ring import Inlet

_monotonic_ns = time.monotonic_ns

TAKE_OVER_S = 0.005
"""How often one who waits tries to lead while a receive call goes on that began before sharing."""


class Sharing:
    """Share one receiver among waiters: one leads, the others wait.

    `polled_packets` is how many packets had been read at the last full poll.
    """

    def __init__(
        self,
        receiver: Receiver,
        connection: DaemonConnection,
        divert: Callable[[Event], bool],
        complain: Callable[[str], None],
    ) -> None:
        """Share a receiver from now on; `divert` and `complain` are as those of `Diversion`."""
        self._receiver = receiver
        self._connection = connection
        self._divert = divert
        self._complain = complain
        # A signal's handler may come here while its thread has it; no step within takes long.
        self._guard = threading.RLock()
        self._active = 0
        self._leader: Waiter | None = None
        self._settled = False
        self._waiters: set[Waiter] = set()
        self.loops: list[Any] = []
        self.diverted: dict[str, Diversion] = {}
        self.polled_packets = -1
        receiver.__class__ = SharedReceiver
        assert isinstance(receiver, SharedReceiver)
        self._make = receiver._make_input
        receiver.sharing = self
        receiver._make_input = self._make_input
        connection.on_packet = self.wake_all

    # -- which inputs answers come on --------------------------------------------------------

    def add_reply_input(self, input_id: str) -> None:
        """Let answers that come on an input be claimed.

        Raises:
            NoPeerError: the input chooses among its messages.
        """
        if any(
            item.id == input_id and isinstance(item, ChoosyInput) for item in self._receiver._order
        ):
            raise NoPeerError(
                f"input `{input_id}` has a `max_rate_hz` or is part of a `sync`: no answers can "
                "come on it"
            )
        diversion = self.diverted.get(input_id)
        if diversion is None:
            diversion = self.diverted[input_id] = Diversion(self._divert, self._complain)
        for item in self._receiver._order:
            if item.id == input_id:
                _divert(item, diversion)

    def _make_input(self, fields: dict[str, Any]) -> Any:
        item = self._make(fields)
        diversion = self.diverted.get(item.id)
        if diversion is not None:
            _divert(item, diversion)
        return item

    # -- those who receive events ------------------------------------------------------------

    def enter(self) -> None:
        """Begin to receive events: whoever leads gives way."""
        with self._guard:
            leader = self._leader
            if leader is not None and not leader.sleeping:
                _refuse_to_wait_for(leader)
            self._active += 1
            if leader is None:
                return
            if leader.sleeping:
                # A task: it holds the turn, but does not run, perhaps until this call returns.
                leader.sleeping = False
                self._leader = None
                self._receiver._words[BOX_ASLEEP] = 0
                self._receiver._lock.release()
                leader.wake()
                return
            leader.asked = True
        doorbell.ring(self._connection.bell)
        leader.left.wait()

    def leave(self) -> None:
        """Receive no more for now: one of those who wait may lead."""
        with self._guard:
            self._active -= 1
        self._pass_on()

    def looked(self) -> None:
        """Take note that somebody has looked for events."""
        receiver = self._receiver
        packets = receiver._packets
        if packets != self.polled_packets and not any(ring.moved() for ring in self._rings()):
            self.polled_packets = packets
            self.wake_all()

    def _pass_on(self) -> None:
        with self._guard:
            waiting = None
            if not self._active and self._leader is None:
                waiting = next(iter(self._waiters), None)
        if waiting is not None:
            waiting.wake()

    def wake_all(self) -> None:
        """Let all who wait look again."""
        with self._guard:
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.wake()

    # -- those who wait ----------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], at: set[Waiter], deadline: int | None) -> bool:
        """Wait until something is done, or for the deadline on CLOCK_MONOTONIC; tell which.

        Whoever may have done it wakes those in `at`.
        """
        self._refuse_to_block()
        self._receiver.refuse_reentry()
        if self._leader is not None:
            _refuse_to_wait_for(self._leader)
        me = Waiter()
        self._begin(me, at)
        try:
            while True:
                me.clear()
                if done():
                    return True
                left = _left(deadline)
                if left is not None and left <= 0:
                    return False
                if self._lead(me):
                    try:
                        self._serve(me, done, deadline)
                    finally:
                        self._step_down(me)
                else:
                    me.woken.wait(left if self._settled else min(left or 1.0, TAKE_OVER_S))
        finally:
            self._end(me, at)

    def _refuse_to_block(self) -> None:
        """Raise if a task of this thread's event loop receives: it could not as long as we wait."""
        asyncio = sys.modules.get("asyncio")
        loop = None if asyncio is None else asyncio._get_running_loop()
        if loop is None:
            return
        unsure = not self._settled and self._receiver._lock.locked()
        if unsure or loop in self.loops:
            raise ExchangeError(
                "waiting here would hold up the event loop that receives for this node: use "
                "`call_async`, `result_async` or `async for`"
            )

    async def wait_async(
        self, done: Callable[[], bool], at: set[Waiter], deadline: int | None
    ) -> bool:
        """Wait like `wait`, without holding up the event loop."""
        import asyncio

        me = TaskWaiter(asyncio.get_running_loop())
        self._begin(me, at)
        try:
            while True:
                me.clear()
                if done():
                    return True
                left = _left(deadline)
                if left is not None and left <= 0:
                    return False
                if self._lead(me):
                    await self._sleep_at_doorbell(me, done, left)
                else:
                    await me.sleep(left if self._settled else min(left or 1.0, TAKE_OVER_S))
        finally:
            self._end(me, at)

    def poll(self) -> None:
        """Hand out the answers that have come, so that they take up no place in their queues."""
        self.enter()
        try:
            if self._receiver._lock.acquire(False):
                try:
                    self._poll_replies()
                finally:
                    self._receiver._lock.release()
        finally:
            self.leave()

    def _begin(self, me: Waiter, at: set[Waiter]) -> None:
        with self._guard:
            self._waiters.add(me)
            at.add(me)

    def _end(self, me: Waiter, at: set[Waiter]) -> None:
        with self._guard:
            self._waiters.discard(me)
            at.discard(me)
        self._pass_on()

    def wake(self, at: set[Waiter]) -> None:
        """Let those in a set look again."""
        with self._guard:
            waiters = list(at)
        for waiter in waiters:
            waiter.wake()

    def _lead(self, me: Waiter) -> bool:
        with self._guard:
            if self._active or self._leader is not None:
                return False
            # Somebody may hold it who has begun to receive before there was anything to share.
            if not self._receiver._lock.acquire(False):
                return False
            self._settled = True
            self._leader = me
            me.asked = False
            me.left.clear()
            return True

    def _step_down(self, me: Waiter) -> None:
        with self._guard:
            self._leader = None
            self._receiver._lock.release()
        me.left.set()
        self._pass_on()

    def _rings(self) -> list[Inlet]:
        return [item.inlet for item in self._receiver._order if isinstance(item, DivertedInput)]

    def _poll_replies(self) -> list[tuple[int, int]]:
        """Read what has come on the inputs of answers; return the words that move if more comes."""
        receiver, connection = self._receiver, self._connection
        connection.refresh()
        receiver._mail = connection.mail
        packets = connection.packets_handled
        if packets != receiver._packets:
            receiver._packets = packets
            receiver._change_inputs()
            if connection.late and not connection.catch_up():
                receiver._packets = -1
        for item in receiver._order:
            if isinstance(item, DivertedInput):
                item.pump()
        self.polled_packets = packets
        watched = [(BOX_MAIL, receiver._mail)]
        for ring in self._rings():
            watched += [(ring.head_at, ring.tail), (ring.lane_head_at, ring.lane_tail)]
        return watched

    def _serve(self, me: Waiter, done: Callable[[], bool], deadline: int | None) -> None:
        receiver = self._receiver
        while True:
            watched = self._poll_replies()
            if done() or me.asked or (deadline is not None and _monotonic_ns() >= deadline):
                return
            receiver._wait(deadline, watched)

    async def _sleep_at_doorbell(
        self, me: TaskWaiter, done: Callable[[], bool], left: float | None
    ) -> None:
        receiver, connection = self._receiver, self._connection
        words = receiver._words
        watch = None
        try:
            watched = self._poll_replies()
            if done():
                return
            watch = Watch(me.loop, (connection.bell, connection.descriptor), me.wake_here)
            words[BOX_ASLEEP] = 1
            fence()
            with self._guard:
                if me.asked or not receiver._may_sleep(watched, ()):
                    return
                me.sleeping = True
            await me.sleep(left)
        finally:
            if watch is not None:
                watch.end()
            with self._guard:
                mine = self._leader is me
                me.sleeping = False
            if mine:
                words[BOX_ASLEEP] = 0
                doorbell.clear(connection.bell)
                self._step_down(me)


def _divert(item: RingInput | TimerInput, diversion: Diversion) -> None:
    if isinstance(item, RingInput) and not isinstance(item, DivertedInput | ChoosyInput):
        divert_input(item, diversion)


def _refuse_to_wait_for(leader: Waiter) -> None:
    """Raise if a signal's handler would wait for the very call that it has interrupted."""
    if leader.thread == threading.get_ident() and not isinstance(leader, TaskWaiter):
        raise ExchangeError(
            "this thread already waits for an answer: a signal handler that runs meanwhile cannot "
            "receive or wait for another one; set a flag there, and do it later"
        )


def _left(deadline: int | None) -> float | None:
    return None if deadline is None else (deadline - _monotonic_ns()) / 1e9


class SharedReceiver(Receiver):
    """A receiver that others wait at, too."""

    sharing: Sharing

    def _poll(self) -> Event | None:
        event = super()._poll()
        self.sharing.looked()
        return event

    def next(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        self.sharing.enter()
        try:
            return super().next(timeout)
        finally:
            self.sharing.leave()

    def try_recv(self) -> Event | None:
        """See `Receiver`."""
        self.sharing.enter()
        try:
            return super().try_recv()
        finally:
            self.sharing.leave()

    def is_empty(self) -> bool:
        """See `Receiver`."""
        self.sharing.enter()
        try:
            return super().is_empty()
        finally:
            self.sharing.leave()

    async def recv_async(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        import asyncio

        loop = asyncio.get_running_loop()
        self.sharing.enter()
        self.sharing.loops.append(loop)
        try:
            return await super().recv_async(timeout)
        finally:
            self.sharing.loops.remove(loop)
            self.sharing.leave()
