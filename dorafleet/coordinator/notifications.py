"""Send alerts to a webhook and by mail, and answer the methods about that. Only the leader does.

What waits is in the store, so that it outlives a coordinator: `notify/told/<robot>` has the alerts
that people have been told of, `notify/waiting/<id>` the notifications that are not delivered yet,
`notify/receivers` what was dropped. After a crash a notification may arrive twice, with one id.
"""

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import msgspec

from dorad.bell import Bell
from dorad.control.alertbook import StoredAlert
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.session import Call, handles
from dorad.problems import ProblemError
from dorafleet.coordinator.messages import (
    ALERTS_RECEIVERS,
    ALERTS_TEST,
    AlertReceiver,
    AlertReceivers,
    AlertTest,
)
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.writer import MeasuredWriter, Writer, transactions
from dorafleet.notify.delivery import Delivery, DeliveryError
from dorafleet.notify.notification import Notification
from dorafleet.notify.queue import DeliveryQueue, Receiver, Waiting
from dorafleet.notify.settings import NotifySettings
from dorafleet.notify.tracker import Told, Tracker
from dorafleet.store.model import Store

TOLD = "notify/told/"
WAITING = "notify/waiting/"
RECEIVERS = "notify/receivers"
LOOK_S = 1.0
"""Time between two looks at the alerts."""

_log = logging.getLogger(__name__)


class Notifications:
    """The receivers of notifications, and their queue."""

    def __init__(
        self,
        settings: NotifySettings,
        store: Store,
        writer: Writer,
        alerts: Callable[[], Mapping[str, Sequence[StoredAlert]]],
    ) -> None:
        """`alerts` returns all alerts that last, by robot."""
        self._store = store
        self._alerts = alerts
        self._take(settings)
        self._next: NotifySettings | None = None
        """Settings that replace the present ones."""
        self._bell = Bell()
        """Rings when there is something to deliver."""
        self.problem = ""
        """Why the last change of the settings could not be read."""
        self._stored_waiting: dict[str, list[str]] = {}
        """The receivers of each notification in the store."""
        self._stored_receivers = b""
        self._had_receivers = False
        """Whether the coordinator before had some."""
        self._unsaved: dict[str, list[Told]] = {}
        self._measured = MeasuredWriter(
            writer, "notifications are not stored, a restart would lose them"
        )
        self._saving = asyncio.Lock()
        self._testing = asyncio.Lock()

    def _take(self, settings: NotifySettings) -> None:
        given = {"webhook": settings.webhook, "mail": settings.mail}
        self._receivers = {name: each for name, each in given.items() if each is not None}
        self._tracker = Tracker(settings.severity)
        self._queue = DeliveryQueue(self._receivers)

    async def load(self) -> None:
        """Take over from the coordinator before. Raises StoreError."""
        told = await read(self._store, TOLD, list[Told])
        waiting = [each for _, each in await read(self._store, WAITING, Waiting)]
        stored = await read(self._store, RECEIVERS, dict[str, Receiver])
        receivers = stored[0][1] if stored else {}
        self._had_receivers = bool(receivers)
        self._stored_waiting = {each.notification.id: each.receivers for each in waiting}
        if gone := self._queue.restore(receivers, waiting):
            _log.warning("%d notifications waited for receivers that are not configured now", gone)
        for name, each in self._receivers.items():
            _log.info("alerts go to the %s at %s", name, each.place)
        if self._receivers and self._receivers.keys() <= receivers.keys():
            self._tracker.restore({entry.key.removeprefix(TOLD): each for entry, each in told})
        else:
            # A receiver that is new is told of all alerts, and so is the other one.
            self._unsaved = {entry.key.removeprefix(TOLD): [] for entry, _ in told}

    def change(self, settings: NotifySettings) -> None:
        """Replace the settings soon; what waits for a receiver that stays is not lost."""
        self._next = settings

    async def run(self) -> NoReturn:
        """Send notifications until cancelled. Call `load` before."""
        while True:
            async with asyncio.TaskGroup() as tasks:
                delivering = [
                    tasks.create_task(
                        self._deliver(name, Delivery(receiver)), name=f"notifications to the {name}"
                    )
                    for name, receiver in self._receivers.items()
                ]
                # What is not stored yet would be lost by a change.
                while self._next is None or self._measured.failed:
                    if self._receivers:
                        self.look()
                    await self._save()
                    await asyncio.sleep(LOOK_S)
                for task in delivering:
                    task.cancel()
            await self._begin_again()

    async def _begin_again(self) -> None:
        """Take over from itself with other settings, as the next coordinator would."""
        settings, self._next = self._next, None
        assert settings is not None
        while True:
            await self._save()
            if not self._measured.failed:
                break
            await asyncio.sleep(LOOK_S)
        self._take(settings)
        self._stored_receivers = b""
        while True:
            try:
                await self.load()
            except ProblemError as error:
                _log.warning("notifications cannot be read, it is tried again: %s", error)
                await asyncio.sleep(LOOK_S)
            else:
                return

    def look(self) -> None:
        """Queue what people must be told."""
        now = time.time()
        self._tracker.observe(now, self._alerts())
        notification = self._tracker.take(now, str(uuid.uuid4()), socket.gethostname())
        if notification is not None:
            _log.debug("notification %s is queued: %s", notification.id, notification.text)
            self._queue.add(notification, now)
            self._bell.ring()

    async def _deliver(self, name: str, delivery: Delivery) -> NoReturn:
        while True:
            notification = self._queue.due(name, time.time(), time.monotonic())
            if notification is None:
                await self._bell.wait(LOOK_S)
                continue
            # It is in the store before it is sent: what has been told is known to the next one.
            await self._save()
            await self._attempt(name, delivery, notification)
            await self._save()

    async def _attempt(self, name: str, delivery: Delivery, notification: Notification) -> None:
        _log.debug("notification %s goes to the %s at %s", notification.id, name, delivery.place)
        try:
            await delivery.send(notification)
        except DeliveryError as error:
            self._queue.failed(
                name,
                notification,
                str(error),
                time.time(),
                time.monotonic(),
                refused=error.refused,
                pause=error.pause,
            )
        else:
            _log.debug("notification %s is delivered to the %s", notification.id, name)
            self._queue.delivered(name, notification, time.time())

    async def _save(self) -> None:
        """Store what has changed; what cannot be stored is tried again."""
        async with self._saving:
            waiting = {id_: [*each.receivers] for id_, each in self._queue.waiting.items()}
            deletes = [WAITING + id_ for id_ in self._stored_waiting if id_ not in waiting]
            puts = {
                WAITING + id_: msgspec.json.encode(self._queue.waiting[id_])
                for id_, names in waiting.items()
                if self._stored_waiting.get(id_) != names
            }
            receivers = msgspec.json.encode(self._queue.receivers)
            if receivers != self._stored_receivers and (self._receivers or self._had_receivers):
                puts[RECEIVERS] = receivers
            self._unsaved.update(self._tracker.take_unsaved())
            for robot, told in self._unsaved.items():
                if told:
                    puts[TOLD + robot] = msgspec.json.encode(told)
                else:
                    deletes.append(TOLD + robot)
            if not puts and not deletes:
                return
            # Notifications before what they have told.
            ordered = sorted(puts.items(), key=lambda each: each[0].startswith(TOLD))
            if await self._measured.put(*transactions(ordered), deletes=deletes):
                self._stored_waiting, self._stored_receivers = waiting, receivers
                self._unsaved.clear()

    @handles(ALERTS_RECEIVERS)
    async def _list(self, _call: Call, _params: Nothing) -> AlertReceivers:
        """Return what became of the notifications to each receiver."""
        return AlertReceivers(
            receivers=[
                AlertReceiver(
                    name=name,
                    place=receiver.place,
                    waiting=len(self._queue.of(name)),
                    dropped=state.dropped,
                    dropped_at=state.dropped_at,
                    why=state.why,
                    delivered_at=state.delivered_at,
                    failing_since=state.failing_since,
                    error=state.error,
                    stored=not self._measured.failed,
                )
                for name, receiver in self._receivers.items()
                for state in [self._queue.receivers[name]]
            ],
            problem=self.problem,
        )

    @handles(ALERTS_TEST)
    async def _test(self, call: Call, _params: Nothing) -> AlertTest:
        """Send one notification to each receiver now, whatever waits."""
        if not self._receivers:
            raise ControlError(
                "refused",
                "this coordinator sends alerts to nobody: it has no receiver",
                "name a webhook or a mail server in `dorafleet.toml` beside the cluster file",
            )
        if self._testing.locked():
            raise ControlError("busy", "a test is sent at the moment", "try again in a moment")
        who = call.peer.name or f"user {call.peer.uid}"
        _log.info("`%s` sends a test to all receivers of alerts", who)
        notification = Notification(
            id=str(uuid.uuid4()),
            coordinator=socket.gethostname(),
            at=time.time(),
            text="a test of dorafleet: alerts of the fleet arrive here",
            open=self._tracker.open,
            kind="test",
        )
        async with self._testing:
            tries = (_try(Delivery(each), notification) for each in self._receivers.values())
            errors = await asyncio.gather(*tries)
        return AlertTest(errors=dict(zip(self._receivers, errors, strict=True)))


async def _try(delivery: Delivery, notification: Notification) -> str:
    try:
        await delivery.send(notification)
    except DeliveryError as error:
        return str(error)
    return ""
