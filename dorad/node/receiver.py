"""The receiver of a node: the calls that return events, from any threads and tasks.

One of them at a time has the turn: it polls the inputs, or sleeps at the doorbell. Tasks of event
loops queue for it. A task that sleeps keeps the turn, but any other call may take it away: the task
then queues again. So nothing is polled twice at once, and a task whose wait is cancelled has taken
no event.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dorad.node import events
from dorad.shm import hops
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from dorad.node.events import Event
    from dorad.node.nodeinputs import NodeInputs


class Waiter:
    """A waiting thread. When `asked` to stop leading, it does so and then sets `left`."""

    sleeping = False

    def __init__(self) -> None:
        self.asked = False
        self.thread = threading.get_ident()
        self.left = threading.Event()
        self.woken = threading.Event()

    def wake(self) -> None:
        """Wake the waiter, from any thread."""
        self.woken.set()

    def clear(self) -> None:
        """Reset the wake-up."""
        self.woken.clear()


class TaskWaiter(Waiter):
    """A waiting task. While it is `sleeping` at the doorbell, another waiter may replace it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Wake the waiter, from any thread."""
        # A closed loop has no tasks left to wake.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.wake_here)

    def wake_here(self) -> None:
        """Wake the waiter, from its own thread."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> None:
        """Reset the wake-up."""
        self._woken = False

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, up to `seconds`."""
        if self._woken:
            return
        future = self._future = self.loop.create_future()
        timer = None
        if seconds is not None:
            timer = self.loop.call_later(max(0.0, seconds), self.wake_here)
        try:
            await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()


class Watch:
    """Duplicates of descriptors, watched by an event loop.

    Duplicates, because an event loop has only one reader per descriptor number.
    """

    def __init__(self, loop: Any, descriptors: tuple[int, ...], call: Callable[[], None]) -> None:
        self._loop = loop
        self._own = [os.dup(descriptor) for descriptor in descriptors]
        for descriptor in self._own:
            loop.add_reader(descriptor, call)

    def end(self) -> None:
        """Stop watching and close the duplicates."""
        for descriptor in self._own:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)


_monotonic_ns = time.monotonic_ns
_get_ident = threading.get_ident

ASYNC_TURN_NS = 1_000_000
"""How often a coroutine that always finds an event yields to other tasks."""


class Turn(Protocol):
    """The exclusive right to poll the inputs and to wait: a lock, or `Sharing` around it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the turn; return False if another thread or task has it."""

    def release(self) -> None:
        """Give the turn back."""


class ReceivingTask(TaskWaiter):
    """A task that waits in `recv_async`."""

    turn: Turn | None = None
    """The turn that it sleeps with."""


@twin
class ReceiverState:
    """The fields of a receiver that `next` looks at each time."""

    __slots__ = ("_holder", "_poll", "_tasks", "_turn", "inputs")


class Receiver(ReceiverState):
    """Receives the events of `inputs`.

    `loop` is the event loop whose task sleeps with the turn, None if there is none.
    """

    def __init__(self, inputs: NodeInputs) -> None:
        self.inputs = inputs
        self.loop: asyncio.AbstractEventLoop | None = None
        self._turn: Turn = inputs.lock
        self._poll = inputs.poll
        self._holder = 0
        """The thread that receives now, or 0."""
        self._tasks: list[ReceivingTask] = []
        """The tasks that wait for an event, in the order of their calls."""
        # Reentrant, because a signal handler may interrupt a thread that holds it.
        self._guard = threading.RLock()
        self._sleeper: ReceivingTask | None = None
        """The task that sleeps with the turn."""
        self._blocked = 0
        """Threads that block until they get the turn."""
        self._turn_ns = 0

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return self.inputs.ended

    def share(self, turn: Turn, poll: Callable[[], Event | None]) -> None:
        """Take turns with calls that wait for replies, and poll through `poll`, from now on.

        A receive call that is under way keeps the lock until it returns.
        """
        self._turn = turn
        self._poll = poll

    @step
    def next(self, timeout: float | None) -> Event | None:
        """Wait for the next event and return it, None after the last. `timeout` in seconds."""
        deadline = None if timeout is None else self.inputs.now_ns() + int(timeout * 1e9)
        turn = self._turn
        if not turn.acquire(False):
            taken = self._wait_for(turn, timeout)
            if taken is None:
                return events.timed_out(timeout or 0.0)
            turn = taken
        try:
            self._holder = _get_ident()
            while True:
                poll = self._poll
                event = poll()
                if event is not None or self.inputs.ended:
                    return event
                if self.inputs.has_passed(deadline):
                    return events.timed_out(timeout or 0.0)
                self.inputs.wait(deadline)
        finally:
            self._holder = 0
            turn.release()
            if self._tasks:
                self.wake_tasks()

    def _wait_for(self, turn: Turn, timeout: float | None) -> Turn | None:
        """Block until this thread has a turn, at most `timeout` seconds; return that turn."""
        self.refuse_reentry()
        with self._guard:
            self._blocked += 1  # from now on, no task falls asleep with the turn
            taken = self._take_from_sleeper()
        try:
            if taken is not None:
                return taken
            limit = -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
            return turn if turn.acquire(timeout=limit) else None
        finally:
            with self._guard:
                self._blocked -= 1
            self.wake_tasks()

    def _take_from_sleeper(self) -> Turn | None:
        """Take the turn of the task that sleeps with it; return None if there is none."""
        with self._guard:
            task, self._sleeper, self.loop = self._sleeper, None, None
            if task is None:
                return None
            turn, task.turn = task.turn, None
            self.inputs.set_asleep(False)
        task.wake()
        return turn

    def wake_tasks(self) -> None:
        """Wake the first waiting task of each event loop: the turn may be free."""
        if not self._tasks:
            return
        with self._guard:
            first = {id(task.loop): task for task in reversed(self._tasks)}
        for task in first.values():
            task.wake()

    def refuse_reentry(self) -> None:
        """Check that this thread would not wait for itself.

        Raises:
            RuntimeError: this thread already receives, and runs a signal handler or another task.
        """
        if self._holder == _get_ident():
            raise RuntimeError(
                "this thread is already receiving on this node: a signal handler, or another task, "
                "that runs meanwhile cannot wait here; use `try_recv`, or set a flag"
            )

    def try_recv(self) -> Event | None:
        """Return the next event if there is one."""
        turn = self._turn
        if not turn.acquire(False):
            taken = self._take_from_sleeper()
            if taken is None:
                # Another thread receives: the next event is for that thread.
                return None
            turn = taken
        try:
            self._holder = _get_ident()
            poll = self._poll
            return None if self.inputs.ended else poll()
        finally:
            self._holder = 0
            turn.release()
            self.wake_tasks()

    def drain(self) -> list[Event]:
        """Return all queued events.

        Raises:
            RuntimeError: the last event was already received.
        """
        if self.ended:
            raise RuntimeError("the event stream is closed")
        drained = []
        while (event := self.try_recv()) is not None:
            drained.append(event)
        return drained

    def is_empty(self) -> bool:
        """Return True if `try_recv` would find nothing."""
        inputs = self.inputs
        inputs.connection.refresh()
        turn = self._turn
        if not turn.acquire(False):
            return inputs.seems_empty()
        try:
            self._holder = _get_ident()
            return inputs.is_empty()
        finally:
            self._holder = 0
            turn.release()
            self.wake_tasks()

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Wait for the next event without blocking the event loop.

        Of several tasks, the one that has waited longest gets it.
        """
        import asyncio

        tasks = hops.begin_tasks(asyncio.current_task)
        deadline = None if timeout is None else self.inputs.now_ns() + int(timeout * 1e9)
        me: ReceivingTask | None = None
        turn: Turn | None = None
        seconds: float | None = None
        try:
            while True:
                if me is not None:
                    me.clear()  # what comes after this wakes the task
                if turn is None:
                    if self._turn_ns < _monotonic_ns() - ASYNC_TURN_NS:
                        await asyncio.sleep(0)
                        self._turn_ns = _monotonic_ns()
                    turn = self._try_turn(me)
                if turn is not None:
                    self._holder = _get_ident()
                    poll = self._poll
                    if tasks is not None:
                        tasks.enter(self.inputs.connection.box.words)
                    event = None if self.inputs.ended else poll()
                    if tasks is not None:
                        tasks.leave(self.inputs.connection.box.words)
                    if event is not None or self.inputs.ended:
                        return event
                if self.inputs.has_passed(deadline):
                    return events.timed_out(timeout or 0.0)
                if me is None:
                    me = ReceivingTask(asyncio.get_running_loop())
                    with self._guard:
                        self._tasks.append(me)
                    if turn is None:
                        continue  # the turn may have become free before this task was known
                if turn is not None:
                    seconds = self.inputs.seconds_until(self.inputs.due_ns(deadline))
                    turn = self._settle(me, turn)
                if me.turn is not None:
                    turn = await self._sleep_at_doorbell(me, seconds)
                elif turn is None:
                    await me.sleep(self.inputs.seconds_until(deadline))
                self._turn_ns = _monotonic_ns()
        finally:
            if me is not None:
                with self._guard:
                    self._tasks.remove(me)
                turn = turn or me.turn
            if turn is not None:
                self._holder = 0
                turn.release()
            self.wake_tasks()

    def _try_turn(self, me: ReceivingTask | None) -> Turn | None:
        """Take the turn for a task if it is free and no task of the same loop waits longer."""
        if self._tasks:
            import asyncio

            loop = asyncio.get_running_loop()
            with self._guard:
                first = next((each for each in self._tasks if each.loop is loop), me)
            if first is not me:
                return None
        turn = self._turn
        return turn if turn.acquire(False) else None

    def _settle(self, me: ReceivingTask, turn: Turn) -> Turn | None:
        """Prepare to sleep after a poll that found nothing; return the turn if something has come.

        The task falls asleep with the turn, unless a thread blocks until it gets the turn.
        """
        with self._guard:
            if not self._blocked:
                if not self.inputs.fall_asleep():
                    return turn
                me.turn, self._sleeper, self.loop = turn, me, me.loop
                self._holder = 0
                return None
        self._holder = 0
        turn.release()
        return None

    async def _sleep_at_doorbell(self, me: ReceivingTask, seconds: float | None) -> Turn | None:
        """Sleep with the turn; return it, or None if another call has taken it meanwhile."""
        inputs = self.inputs
        watch = Watch(me.loop, inputs.descriptors, me.wake_here)
        try:
            await me.sleep(seconds)
        finally:
            watch.end()
            with self._guard:
                if self._sleeper is me:
                    self._sleeper = self.loop = None
                    inputs.set_asleep(False)
        turn, me.turn = me.turn, None
        if turn is not None:
            inputs.read_bell()
        return turn
