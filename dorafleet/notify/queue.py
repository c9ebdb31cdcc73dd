"""Notifications that wait for their receivers, and what became of them. It reads no clock.

A receiver gets them in order. One that does not take them is tried again, less and less often, for
a day. What is too many or too old is dropped, and counted.
"""

import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec

from dorad.control.messages import Struct
from dorad.int64 import Int64
from dorafleet.notify.notification import Notification

MAX_WAITING = 50
"""Notifications that wait for one receiver."""
MAX_AGE_S = 86400.0
"""Seconds after which a notification is given up."""
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 300.0
"""Pauses between two attempts: each is twice as long as the one before, up to this."""
MAX_ERROR = 500
"""Characters of an error."""

_log = logging.getLogger(__name__)


class Waiting(Struct):
    """A notification with the receivers that have not got it yet."""

    notification: Notification
    receivers: list[str]


class Receiver(Struct):
    """What became of the notifications to one receiver."""

    dropped: Int64 = 0
    """Number that it will not get."""
    dropped_at: float | None = None
    why: str = ""
    """Why the last one was dropped."""
    told: Int64 = 0
    """How many of them it has been told of."""
    delivered_at: float | None = None
    failing_since: float | None = None
    error: str = ""
    """Why the last attempt failed; empty after one that succeeded."""


class DeliveryQueue:
    """The queue of all receivers."""

    def __init__(self, receivers: Iterable[str]) -> None:
        self.receivers = {name: Receiver() for name in receivers}
        self.waiting: dict[str, Waiting] = {}
        """By id, the oldest first."""
        self._pauses: dict[str, float] = {}
        self._next: dict[str, float] = {}
        """When each receiver is tried again, on the clock of `due`."""

    def restore(self, receivers: Mapping[str, Receiver], waiting: Iterable[Waiting]) -> int:
        """Take over the queue of the previous coordinator.

        Return the number of notifications for receivers that are not configured any more.
        """
        for name in self.receivers:
            self.receivers[name] = receivers.get(name, Receiver())
        gone = 0
        for each in sorted(waiting, key=lambda each: each.notification.at):
            own = [name for name in each.receivers if name in self.receivers]
            gone += len(each.receivers) - len(own)
            if own:
                self.waiting[each.notification.id] = Waiting(
                    notification=each.notification, receivers=own
                )
        return gone

    def add(self, notification: Notification, now: float) -> None:
        """Add a notification for all receivers; drop the oldest one of a receiver with many."""
        self.waiting[notification.id] = Waiting(
            notification=notification, receivers=[*self.receivers]
        )
        for name in self.receivers:
            while len(self.of(name)) > MAX_WAITING:
                self._drop(name, self.of(name)[0], f"more than {MAX_WAITING} waited", now)

    def of(self, name: str) -> list[Notification]:
        """Return what waits for a receiver, the oldest first."""
        return [each.notification for each in self.waiting.values() if name in each.receivers]

    def due(self, name: str, now: float, clock: float) -> Notification | None:
        """Return what a receiver gets now, or None. `now` is since 1970, `clock` is monotonic.

        `dropped` in it is the number of those that it does not get.
        """
        for each in self.of(name):
            if now - each.at < MAX_AGE_S:
                break
            hours = MAX_AGE_S / 3600
            self._drop(name, each, f"not delivered within {hours:.0f} hours", now)
        waiting = self.of(name)
        if not waiting or clock < self._next.get(name, 0.0):
            return None
        receiver = self.receivers[name]
        return msgspec.structs.replace(waiting[0], dropped=receiver.dropped - receiver.told)

    def delivered(self, name: str, notification: Notification, now: float) -> None:
        """Record that a receiver has got what `due` has returned."""
        receiver = self.receivers[name]
        if receiver.error:
            _log.info("%s: notifications are delivered again", name)
        receiver.told += notification.dropped
        receiver.delivered_at, receiver.failing_since, receiver.error = now, None, ""
        self._pauses.pop(name, None)
        self._next.pop(name, None)
        self._remove(name, notification.id)

    def failed(
        self,
        name: str,
        notification: Notification,
        error: str,
        now: float,
        clock: float,
        *,
        refused: bool = False,
        pause: float = 0.0,
    ) -> None:
        """Record that an attempt has failed; one that was `refused` is not tried again.

        The next attempt is made after `pause` seconds at least.
        """
        receiver = self.receivers[name]
        error = error[:MAX_ERROR]
        if receiver.error != error:
            _log.warning("%s: a notification was not delivered: %s", name, error)
        receiver.error = error
        receiver.failing_since = receiver.failing_since or now
        if refused:
            self._drop(name, notification, error, now)
        own = self._pauses.get(name, FIRST_PAUSE_S)
        self._next[name] = clock + min(max(own, pause), MAX_PAUSE_S)
        self._pauses[name] = min(2 * own, MAX_PAUSE_S)
        _log.debug("%s: tried again in %.0f s", name, self._next[name] - clock)

    def _drop(self, name: str, notification: Notification, why: str, now: float) -> None:
        receiver = self.receivers[name]
        receiver.dropped += 1
        receiver.dropped_at, receiver.why = now, why
        _log.warning("%s: a notification is dropped: %s", name, why)
        self._remove(name, notification.id)

    def _remove(self, name: str, id_: str) -> None:
        waiting = self.waiting.get(id_)
        if waiting is None or name not in waiting.receivers:
            return
        left: Collection[str] = [each for each in waiting.receivers if each != name]
        if left:
            self.waiting[id_] = Waiting(notification=waiting.notification, receivers=[*left])
        else:
            del self.waiting[id_]
