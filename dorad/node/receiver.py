"""The receiver of a node: the calls that return events, one thread or task at a time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from dorad.node import events
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from dorad.node.events import Event
    from dorad.node.nodeinputs import NodeInputs

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


@twin
class ReceiverState:
    """The fields of a receiver that `next` looks at each time."""

    __slots__ = ("_holder", "_poll", "_turn", "inputs")


class Receiver(ReceiverState):
    """Receives the events of `inputs`.

    `loop` is the event loop whose task is suspended in `recv_async`, None if there is none.
    """

    def __init__(self, inputs: NodeInputs) -> None:
        self.inputs = inputs
        self.loop: asyncio.AbstractEventLoop | None = None
        self._turn: Turn = inputs.lock
        self._poll = inputs.poll
        self._holder = 0
        """The thread that receives now, or 0."""
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
        deadline = None if timeout is None else _monotonic_ns() + int(timeout * 1e9)
        turn = self._turn
        if not turn.acquire(False):
            self.refuse_reentry()
            if timeout is None:
                turn.acquire()
            elif not turn.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
                return events.timed_out(timeout)
        try:
            self._holder = _get_ident()
            while True:
                poll = self._poll
                event = poll()
                if event is not None or self.inputs.ended:
                    return event
                if deadline is not None and _monotonic_ns() >= deadline:
                    return events.timed_out(timeout or 0.0)
                self.inputs.wait(deadline)
        finally:
            self._holder = 0
            turn.release()

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
            # Another thread receives: the next event is for that thread.
            return None
        try:
            self._holder = _get_ident()
            poll = self._poll
            return None if self.inputs.ended else poll()
        finally:
            self._holder = 0
            turn.release()

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

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Wait for the next event without blocking the event loop.

        Raises:
            RuntimeError: another thread or task is already waiting for events of this node.
        """
        import asyncio

        deadline = None if timeout is None else _monotonic_ns() + int(timeout * 1e9)
        inputs, turn = self.inputs, self._turn
        if not turn.acquire(False):
            raise RuntimeError("another thread or task is already receiving on this node")
        try:
            self._holder = _get_ident()
            while True:
                if self._turn_ns < _monotonic_ns() - ASYNC_TURN_NS:
                    self.loop = asyncio.get_running_loop()
                    await asyncio.sleep(0)
                    self._turn_ns = _monotonic_ns()
                poll = self._poll
                event = None if inputs.ended else poll()
                if event is not None or inputs.ended:
                    return event
                if deadline is not None and _monotonic_ns() >= deadline:
                    return events.timed_out(timeout or 0.0)
                self.loop = asyncio.get_running_loop()
                await inputs.wait_async(deadline)
                self._turn_ns = _monotonic_ns()
        finally:
            self.loop = None
            self._holder = 0
            turn.release()
