"""The threads of goals of a node that is stepped: one runs at a time, by the logical time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple


class _Waiting(NamedTuple):
    due_ns: int
    is_over: Callable[[], bool]
    go_on: threading.Semaphore


class GoalTurns:
    """Lets the thread that serves, or one thread of a goal, run, and never two of them.

    A goal's thread runs until it waits, or ends. So the order of what goals send does not depend on
    the scheduler of the machine. A handler that sleeps in another way only takes longer.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        """`now_ns` returns the logical time."""
        self._now_ns = now_ns
        self._waiting: list[_Waiting] = []
        self._given_back = threading.Semaphore(0)
        self._threads: set[threading.Thread] = set()

    def start(self, thread: threading.Thread) -> None:
        """Start the thread of a goal, and return when it waits or has ended."""
        self._threads.add(thread)
        thread.start()
        self._given_back.acquire()

    def end(self) -> None:
        """Give the turn back at the end of a goal's thread."""
        self._threads.discard(threading.current_thread())
        self._given_back.release()

    def has_this_thread(self) -> bool:
        """Return True in the thread of a goal, which may call `wait`."""
        return threading.current_thread() in self._threads

    def wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Give the turn back until `seconds` later, or until `is_over()`."""
        if not is_over():
            waiting = _Waiting(self._now_ns() + int(seconds * 1e9), is_over, threading.Semaphore(0))
            self._waiting.append(waiting)
            self._given_back.release()
            waiting.go_on.acquire()

    def run_due(self) -> float | None:
        """Let the threads run whose waits are over; return the seconds until the next is.

        None if no goal waits.
        """
        while self._waiting:
            due = [each for each in self._waiting if each.is_over()] or self._waiting
            first = min(due, key=lambda each: each.due_ns)
            left = first.due_ns - self._now_ns()
            if left > 0 and not first.is_over():
                return left / 1e9
            self._waiting.remove(first)
            first.go_on.release()
            self._given_back.acquire()
        return None
