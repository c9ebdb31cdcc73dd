"""Share the inputs of a node between its receiver and the calls and goals that wait for replies.

One thread or task at a time polls the rings and sleeps at the doorbell. The receiver has priority;
while it receives, it passes replies on to the waiting calls. Otherwise one of the waiting calls
leads: it polls the inputs on which replies come, and leaves all others in their queues.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from dorad.node.inputs import ChoosyInput
from dorad.node.patterns.errors import ExchangeError, NoPeerError
from dorad.node.receiver import Receiver, TaskWaiter, Waiter, Watch
from dorad.node.replyinput import ReplySplitter
from dorad.shm import doorbell

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

MAX_WAIT_S = 1e9
"""Longer timeouts are as good as none."""

TAKE_OVER_S = 0.005
"""How often a waiter tries to lead while a receive call lasts that began before sharing."""


class Sharing:
    """The turns of one receiver and of the waiters for replies; a `Turn` of that receiver."""

    def __init__(
        self,
        receiver: Receiver,
        dispatch: Callable[[Event], bool],
        warn: Callable[[str], None],
    ) -> None:
        """Share a receiver from now on; `dispatch` and `warn` are those of `ReplySplitter`."""
        self._receiver = receiver
        self._inputs = receiver.inputs
        self._connection = receiver.inputs.connection
        self._dispatch = dispatch
        self._warn = warn
        # Reentrant, because a signal handler may interrupt a thread that holds it.
        self._lock = threading.RLock()
        self._receiving = 0
        """Receive calls that have a turn, or wait for one."""
        self._leader: Waiter | None = None
        self._settled = False
        """True once all receive calls that began before sharing have ended."""
        self._waiters: set[Waiter] = set()
        receiver.share(self, self._poll)
        self._connection.on_packet = self.wake_all

    @property
    def polled_packets(self) -> int:
        """Packets that had been handled when all reply inputs were last found empty."""
        return self._inputs.polled_packets

    def deadline_of(self, timeout: float | None) -> int | None:
        """Return the deadline of a wait of `timeout` seconds that begins now."""
        if timeout is None:
            return None
        return self._inputs.now_ns() + int(min(timeout, MAX_WAIT_S) * 1e9)

    def add_reply_input(self, input_id: str) -> None:
        """Pass replies on an input to the calls that wait for them.

        Raises:
            NoPeerError: the input selects among its messages.
        """
        if any(isinstance(item, ChoosyInput) for item in self._inputs.of(input_id)):
            raise NoPeerError(
                f"input `{input_id}` has a `max_rate_hz` or is part of a `sync`: no replies can "
                "come on it"
            )
        self._inputs.add_reply_input(input_id, ReplySplitter(self._dispatch, self._warn))
        self._receiver.wake_tasks()

    def _poll(self) -> Event | None:
        """Poll for the receiver, and wake the waiters if packets may have changed their fate."""
        event = self._inputs.poll()
        if self._inputs.update_polled():
            self.wake_all()
        return event

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the turn for a receive call; a leading waiter gives way."""
        self._enter()
        taken = False
        try:
            taken = self._inputs.lock.acquire(blocking, timeout)
        finally:
            if not taken:
                self._leave()
        return taken

    def release(self) -> None:
        """Give the turn back after a receive call: a waiter may lead."""
        self._inputs.lock.release()
        self._leave()

    def _enter(self) -> None:
        with self._lock:
            leader = self._leader
            if leader is not None and not leader.sleeping:
                _refuse_to_wait_for(leader)
            self._receiving += 1
            if leader is None:
                return
            if leader.sleeping:
                # The leader is a suspended task. It cannot give way before this thread returns to
                # its event loop, so this thread takes the lock away from it.
                leader.sleeping = False
                self._leader = None
                self._inputs.set_asleep(False)
                self._inputs.lock.release()
                leader.wake()
                return
            leader.asked = True
        doorbell.ring(self._connection.bell)
        leader.left.wait()

    def _leave(self) -> None:
        with self._lock:
            self._receiving -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        """Wake a waiter to lead if no receive call wants the turn."""
        with self._lock:
            waiting = None
            if not self._receiving and self._leader is None:
                waiting = next(iter(self._waiters), None)
        if waiting is not None:
            waiting.wake()

    def wake_all(self) -> None:
        """Wake all waiters."""
        self.wake(self._waiters)

    def wake(self, at: set[Waiter]) -> None:
        """Wake the waiters in a set."""
        with self._lock:
            waiters = list(at)
        for waiter in waiters:
            waiter.wake()

    def wait(self, done: Callable[[], bool], at: set[Waiter], deadline: int | None) -> bool:
        """Wait until `done()`; return False at the deadline on CLOCK_MONOTONIC.

        The waiter is in `at` meanwhile: a thread that changes the result of `done` wakes that set.
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
                if self._inputs.has_passed(deadline):
                    return False
                if self._lead(me):
                    try:
                        self._serve(me, done, deadline)
                    finally:
                        self._step_down(me)
                else:
                    left = self._inputs.seconds_until(deadline)
                    me.woken.wait(left if self._settled else min(left or 1.0, TAKE_OVER_S))
        finally:
            self._end(me, at)

    def _refuse_to_block(self) -> None:
        """Raise if a task of this thread's event loop receives, because it could not continue."""
        loop = self._receiver.loop
        if loop is None:
            return
        import asyncio

        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # none runs in this thread
            return
        if running is loop:
            raise ExchangeError(
                "waiting here would block the event loop that receives for this node: use "
                "`call_async`, `result_async` or `async for`"
            )

    async def wait_async(
        self, done: Callable[[], bool], at: set[Waiter], deadline: int | None
    ) -> bool:
        """Wait like `wait`, without blocking the event loop."""
        import asyncio

        me = TaskWaiter(asyncio.get_running_loop())
        self._begin(me, at)
        try:
            while True:
                me.clear()
                if done():
                    return True
                if self._inputs.has_passed(deadline):
                    return False
                left = self._inputs.seconds_until(deadline)
                if self._lead(me):
                    await self._sleep_at_doorbell(me, done, left)
                else:
                    await me.sleep(left if self._settled else min(left or 1.0, TAKE_OVER_S))
        finally:
            self._end(me, at)

    def poll(self) -> None:
        """Pass on the replies that have come, to make room in their queues."""
        if self.acquire(False):
            try:
                self._inputs.poll_replies()
            finally:
                self.release()
                self._receiver.wake_tasks()

    def _begin(self, me: Waiter, at: set[Waiter]) -> None:
        with self._lock:
            self._waiters.add(me)
            at.add(me)

    def _end(self, me: Waiter, at: set[Waiter]) -> None:
        with self._lock:
            self._waiters.discard(me)
            at.discard(me)
        self._pass_on()

    def _lead(self, me: Waiter) -> bool:
        """Become the leader if there is none and no receive call wants the turn."""
        with self._lock:
            if self._receiving or self._leader is not None:
                return False
            # A receive call that began before sharing may hold the lock.
            if not self._inputs.lock.acquire(False):
                return False
            self._settled = True
            self._leader = me
            me.asked = False
            me.left.clear()
        _log.debug("a waiting call leads: it polls the reply inputs")
        return True

    def _step_down(self, me: Waiter) -> None:
        with self._lock:
            self._leader = None
            self._inputs.lock.release()
        me.left.set()
        self._pass_on()
        self._receiver.wake_tasks()

    def _serve(self, me: Waiter, done: Callable[[], bool], deadline: int | None) -> None:
        """Poll the reply inputs as the leader, until `done`, the deadline, or a receive call."""
        inputs = self._inputs
        while True:
            watched = inputs.poll_replies()
            if done() or me.asked or inputs.has_passed(deadline):
                return
            inputs.wait(deadline, watched)

    async def _sleep_at_doorbell(
        self, me: TaskWaiter, done: Callable[[], bool], left: float | None
    ) -> None:
        """Poll the reply inputs as the leader, and sleep once if nothing has come."""
        inputs, connection = self._inputs, self._connection
        watch = None
        try:
            watched = inputs.poll_replies()
            if done():
                return
            watch = Watch(me.loop, (connection.bell, connection.descriptor), me.wake_here)
            inputs.set_asleep(True)
            with self._lock:
                if me.asked or not inputs.may_sleep(watched):
                    return
                me.sleeping = True
            await me.sleep(left)
        finally:
            if watch is not None:
                watch.end()
            with self._lock:
                mine = self._leader is me
                me.sleeping = False
            if mine:
                inputs.set_asleep(False)
                doorbell.clear(connection.bell)
                self._step_down(me)


def _refuse_to_wait_for(leader: Waiter) -> None:
    """Raise if a signal handler would wait for the very call that it has interrupted."""
    if leader.thread == threading.get_ident() and not isinstance(leader, TaskWaiter):
        raise ExchangeError(
            "this thread already waits for a reply: a signal handler that runs meanwhile cannot "
            "receive or wait for another one; set a flag there, and do it later"
        )
