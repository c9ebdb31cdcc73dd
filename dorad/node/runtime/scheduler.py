"""Waiting operators of one process: one of them, the leader, waits at the doorbell for all.

The first operator without events leads. It sleeps at the node's doorbell, socket and timers, and
wakes the others when events come for them. When it gets an event itself, it makes another waiting
operator the leader, and handles its event. While all operators work, senders need not ring the
doorbell.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from dorad.shm import doorbell, stepping
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.runtime.inbox import Inbox

_monotonic_ns = time.monotonic_ns


class OperatorScheduler:
    """The waiting operators of one process."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection
        self._words = connection.box.words
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor])
        self._mutex = threading.Lock()
        self._leader: Inbox | None = None
        self._others: list[Inbox] = []
        self._due_ns: int | None = None
        """The time at which the leader wakes up at the latest."""

    def wait(self, inbox: Inbox) -> None:
        """Return when an inbox that was found empty may have an event."""
        with self._mutex:
            leads = self._leader is None
            if leads:
                self._leader = inbox
            else:
                self._others.append(inbox)
                due = inbox.due_ns()
                if due is not None and (self._due_ns is None or due < self._due_ns):
                    doorbell.ring(self._connection.bell)
        # Check once more: an event that came before it was in `_others` woke no operator.
        if not (leads or (inbox.may_have_event() and self._leave(inbox))):
            inbox.gate.acquire()
        if self._leader is inbox:
            self._lead(inbox)

    def sleep_stepped(self, inboxes: Sequence[Inbox]) -> None:
        """Sleep until an inbox may have an event, in the only thread of a node that is stepped."""
        if any(each.may_have_event() for each in inboxes):
            return
        dues = [due for each in inboxes if (due := each.due_ns()) is not None]
        stepping.sleep_until(self._words, min(dues, default=None))
        self._words[BOX_ASLEEP] = 1
        try:
            fence()
            # Nobody sends to a node that is not held, and packets are not read while it sleeps: the
            # daemon takes a node that sleeps, and has read its packets, for one that is done.
            if not self._connection.has_mail():
                self._waiter.wait(None)
        finally:
            self._words[BOX_ASLEEP] = 0
        self._connection.read_mail()

    def wake(self, inbox: Inbox) -> None:
        """Wake the operator of an inbox, if it waits, because the inbox has a new event."""
        with self._mutex:
            if inbox is self._leader:
                if self._words[BOX_ASLEEP]:
                    doorbell.ring(self._connection.bell)
            elif inbox in self._others:
                self._others.remove(inbox)
                inbox.gate.release()

    def _leave(self, inbox: Inbox) -> bool:
        """Stop waiting; return False if the inbox is being woken already."""
        with self._mutex:
            if inbox not in self._others:
                return False
            self._others.remove(inbox)
            return True

    def _lead(self, inbox: Inbox) -> None:
        try:
            while not inbox.may_have_event():
                self._sleep(inbox)
                self._wake_others()
        finally:
            # Whoever wakes up leads already: it cannot end first, and leave the others without.
            with self._mutex:
                self._leader = self._others.pop(0) if self._others else None
                if self._leader is not None:
                    self._leader.gate.release()

    def _wake_others(self) -> None:
        with self._mutex:
            for other in [each for each in self._others if each.may_have_event()]:
                self._others.remove(other)
                other.gate.release()

    def _sleep(self, inbox: Inbox) -> None:
        """Sleep until the doorbell rings, the daemon sends a packet, or a timer is due."""
        words, connection = self._words, self._connection
        words[BOX_ASLEEP] = 1
        try:
            fence()
            with self._mutex:
                waiting = [inbox, *self._others]
                dues = [due for each in waiting if (due := each.due_ns()) is not None]
                self._due_ns = due = min(dues, default=None)
            if any(each.may_have_event() for each in waiting):
                return
            if due is None:
                ready = self._waiter.wait(None)
            else:
                ready = self._waiter.wait(due - _monotonic_ns(), fine=True)
        finally:
            words[BOX_ASLEEP] = 0
        if connection.descriptor in ready:
            connection.read_mail()
