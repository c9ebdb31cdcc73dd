"""The alerts in the store, with their acknowledgements, for the next coordinator.

`alerts/<robot>` is there for each robot that has ever connected, `past-alerts` has the last ones
that are over, `robot-states` since when each robot is in its state. They are measured, not decided:
only an acknowledgement has a record in the audit.
"""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dorad.control.alertbook import StoredAlert, identity
from dorad.control.messages import PastAlert
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.writer import MeasuredWriter, Writer, transactions
from dorafleet.store.model import Store

PREFIX = "alerts/"
PAST = "past-alerts"
STATES = "robot-states"
EVERY_S = 2.0
"""Minimum time between two writes."""
ROBOT_S = 30.0
"""The same for one robot: one whose alerts change all the time must not fill the store."""
PAST_S = 10.0
"""The same for all those that are over, and for the states of robots."""
MAX_KEPT = 20
"""Alerts of one robot that are stored, those that are acknowledged and the worst first."""

_log = logging.getLogger(__name__)


class AlertStore:
    """The stored alerts of each robot."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._kept: dict[str, object] = {}
        """The identity of the stored alerts of each robot; see `identity`."""
        self._due = 0.0
        self._written: dict[str, float] = {}
        """When the alerts of each robot were stored last, on the monotonic clock."""
        self._past: Sequence[PastAlert] = ()
        """The newest stored one of those that are over."""
        self._past_due = 0.0
        self._states: Mapping[str, tuple[str, float]] = {}
        """The stored ones."""
        self._states_due = 0.0
        self._measured = MeasuredWriter(
            writer, "alerts are not stored, and a restart would lose them"
        )

    @property
    def robots(self) -> Collection[str]:
        """The robots that have ever connected."""
        return self._kept.keys()

    def forget_robot(self, robot: str) -> None:
        """Forget a robot whose key was deleted."""
        self._kept.pop(robot, None)
        self._written.pop(robot, None)
        # The newest one that is over may have been of it: the list is written again.
        self._past = ()

    async def load(self) -> dict[str, list[StoredAlert]]:
        """Return the alerts of the previous coordinator, by robot. Raises StoreError."""
        by_robot: dict[str, list[StoredAlert]] = {}
        for entry, alerts in await read(self._store, PREFIX, list[StoredAlert]):
            robot = entry.key.removeprefix(PREFIX)
            self._kept[robot] = identity(alerts)
            by_robot[robot] = alerts
        _log.debug("%d alerts of %d robots", sum(map(len, by_robot.values())), len(by_robot))
        return by_robot

    async def load_past(self) -> list[PastAlert]:
        """Return the alerts that were over, the newest first. Raises StoreError."""
        stored = dict(await read(self._store, PAST, list[PastAlert]))
        past = next((alerts for entry, alerts in stored.items() if entry.key == PAST), [])
        self._past = past[:1]
        return past

    async def keep_past(self, alerts: Sequence[PastAlert]) -> None:
        """Store the alerts that are over, the newest first, if there are new ones.

        It is done every ten seconds at most.
        """
        now = time.monotonic()
        if list(alerts[:1]) != list(self._past) and now >= self._past_due:
            self._past_due = now + PAST_S
            if await self._measured.put({PAST: msgspec.json.encode(alerts)}):
                self._past = alerts[:1]

    async def load_states(self) -> dict[str, tuple[str, float]]:
        """Return the last state of each robot and when it began. Raises StoreError."""
        stored = dict(await read(self._store, STATES, dict[str, tuple[str, float]]))
        latest = next((states for entry, states in stored.items() if entry.key == STATES), {})
        self._states = dict(latest)
        return latest

    async def keep_states(self, states: Mapping[str, tuple[str, float]]) -> None:
        """Store the state of each robot and when it began, every ten seconds at most."""
        now = time.monotonic()
        if states != self._states and now >= self._states_due:
            self._states_due = now + PAST_S
            if await self._measured.put({STATES: msgspec.json.encode(states)}):
                self._states = dict(states)

    async def keep_acknowledged(
        self, alerts: Mapping[str, Sequence[StoredAlert]], record: Mapping[str, Any]
    ) -> None:
        """Store the alerts of these robots, with a record in the audit. Hold `writer.changing`.

        Those of many robots take several transactions; the first one has the record.

        Raises:
            ControlError: another coordinator leads now.
            StoreError: they cannot be written.
        """
        kept = {robot: _worst(each) for robot, each in alerts.items()}
        first, *rest = [*_chunks(kept)] or [{}]
        await self._writer.commit(record, puts=first)
        self._stored(first, kept)
        for puts in rest:
            await self._writer.keep(puts)
            self._stored(puts, kept)

    async def keep(
        self, alerts: Mapping[str, Sequence[StoredAlert]], seen: Collection[str]
    ) -> None:
        """Store the alerts of the robots that were `seen`, if they have changed.

        It is done every two seconds at most. What cannot be stored is tried again.
        """
        if time.monotonic() < self._due:
            return
        kept = {robot: _worst(alerts.get(robot, ())) for robot in seen}
        changed = {
            robot: each
            for robot, each in kept.items()
            if time.monotonic() >= self._written.get(robot, float("-inf")) + ROBOT_S
            and self._kept.get(robot) != identity(each)
        }
        if not changed:
            return
        self._due = time.monotonic() + EVERY_S
        for puts in _chunks(changed):
            if not await self._measured.put(puts):
                return
            self._stored(puts, changed)

    def _stored(self, puts: Iterable[str], alerts: Mapping[str, Sequence[StoredAlert]]) -> None:
        """Remember what the store has now under the keys of a transaction."""
        robots = [key.removeprefix(PREFIX) for key in puts]
        self._kept.update((each, identity(alerts[each])) for each in robots)
        self._written.update(dict.fromkeys(robots, time.monotonic()))


def _worst(alerts: Sequence[StoredAlert]) -> list[StoredAlert]:
    """Return the alerts that are stored of one robot, which may have made up any number."""
    order = sorted(alerts, key=lambda x: (not x.acked_by, x.finding.severity != "fail"))
    return order[:MAX_KEPT]


def _chunks(changed: Mapping[str, Sequence[StoredAlert]]) -> Iterator[dict[str, bytes]]:
    """Yield what each transaction puts."""
    return transactions((PREFIX + each, msgspec.json.encode(changed[each])) for each in changed)
