"""The dataflows and labels of the fleet: in memory, and in the store with every change."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.bell import Bell
from dorad.control.naming import find
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.topology import changes
from dorafleet.coordinator.audit import read_tail
from dorafleet.coordinator.records import (
    DATAFLOWS,
    DESIRED,
    LABELS,
    Record,
    Restored,
    Wanted,
    desired_key,
    puts_for,
)
from dorafleet.coordinator.shares import port_of
from dorafleet.coordinator.stored import damaged, read
from dorafleet.coordinator.writing import uninterrupted
from dorafleet.store.backup import RESTORED
from dorafleet.store.errors import Code, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from dorad.dataflow.model import Dataflow
    from dorafleet.coordinator.audit import Head
    from dorafleet.coordinator.writing import Writer
    from dorafleet.store.model import Store

_log = logging.getLogger(__name__)


class Fleet:
    """The desired state in the store. Only the leader has one, and only the leader writes."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        elsewhere: Callable[[], Iterable[str]] = tuple,
        instance: Callable[[str], Record | None] = lambda _: None,
    ) -> None:
        """Start empty; `load` reads the store.

        `elsewhere` returns the dataflows that only robots know, for errors about a name. `instance`
        returns the release over several machines with a name or UUID, as a record.
        """
        self.writer = writer
        self._elsewhere = elsewhere
        self._find_instance = instance
        self.bell = Bell()
        """Rings at every change of a dataflow, desired or measured."""
        self.head: Head
        """The end of the audit."""
        self.restored: Restored | None = None
        self._store = store
        self._revision = 0
        self._records: dict[str, Record] = {}
        self._wanted: dict[str, dict[str, Wanted]] = {}
        self._labels: dict[str, dict[str, str | None]] = {}
        self._parsed: dict[str, tuple[str, int, Dataflow]] = {}
        """The last dataflow of each key, with its UUID and generation."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError or AuditError."""
        self.head = (await read_tail(self._store)).head
        revision = (await self._store.get("", limit=1)).revision
        self._records = {}
        for entry, record in await read(self._store, DATAFLOWS, Record):
            if entry.key != f"{DATAFLOWS}{record.key}":
                raise damaged(self._store, entry, f"it describes `{record.key}`")
            self._records[record.key] = record
        self._wanted = {}
        for entry, wanted in await read(self._store, DESIRED, Wanted):
            robot, _, dataflow = entry.key.removeprefix(DESIRED).partition("/")
            self._want(robot, dataflow, wanted)
        self._labels = {
            entry.key.removeprefix(LABELS): labels
            for entry, labels in await read(self._store, LABELS, dict[str, str | None])
        }
        restored = await read(self._store, RESTORED, Restored)
        self.restored = restored[0][1] if restored else None
        self._revision = max(self._revision, revision)
        _log.debug("%d dataflows at revision %d", len(self._records), self._revision)

    @property
    def store_name(self) -> str:
        """Where the store is, for people."""
        return self._store.name

    @property
    def records(self) -> list[Record]:
        """All dataflows, the oldest first."""
        return sorted(self._records.values(), key=lambda record: record.started_at)

    @property
    def running(self) -> list[Record]:
        """The dataflows that have not ended, the oldest first."""
        return [record for record in self.records if record.running]

    @property
    def next_generation(self) -> int:
        """A generation above all earlier ones.

        It follows the revision of the store, which never falls, not even after a restore.
        """
        return self._revision + 1

    def find(self, wanted: str | None, *, ended_too: bool = False) -> Record:
        """Return the dataflow with this name or UUID. Raises ControlError."""
        if wanted is not None and (instance := self.instance(wanted)) is not None:
            return instance
        records = self.records
        return records[find(records, wanted, ended_too=ended_too, elsewhere=self._elsewhere)]

    def get(self, key: str) -> Record | None:
        """Return the dataflow with this key, or None."""
        return self._records.get(key)

    def instance(self, wanted: str) -> Record | None:
        """Return the release over several machines with a name or UUID, None if there is none.

        A dataflow that was started and runs comes before one of the same name.
        """
        for each in self._records.values():
            if each.running and wanted in (each.name, each.uuid):
                return None
        return self._find_instance(wanted)

    def still_runs(self, record: Record) -> bool:
        """Return True until a run of a dataflow, or an instance of a release, has ended."""
        now = self.get(record.key)
        if now is None:
            return self.instance(record.uuid) is not None
        return now.uuid == record.uuid and now.running

    def run(self, uuid: str) -> Record | None:
        """Return the dataflow with this UUID, or None."""
        return next((each for each in self._records.values() if each.uuid == uuid), None)

    def dataflow(self, record: Record) -> Dataflow:
        """Return the checked dataflow of a record. Raises DataflowError."""
        known = self._parsed.get(record.key)
        if known is None or known[:2] != (record.uuid, record.generation):
            parsed = checked(record.descriptor, record.path)
            known = self._parsed[record.key] = (record.uuid, record.generation, parsed)
        return known[2]

    def changes(self, record: Record) -> list[str]:
        """Return how a dataflow differs from the file it was started from, in lines."""
        if record.original == record.descriptor:
            return []
        return changes(checked(record.original, record.path), self.dataflow(record))

    def wanted(self, robot: str) -> dict[str, Wanted]:
        """Return the desired shares of a robot, by dataflow, without those of releases."""
        return {
            dataflow: wanted
            for dataflow, wanted in self._wanted.get(robot, {}).items()
            if not wanted.is_order
        }

    def orders(self, robot: str) -> dict[str, Wanted]:
        """Return the desired releases of a robot, by dataflow."""
        return {
            dataflow: wanted
            for dataflow, wanted in self._wanted.get(robot, {}).items()
            if wanted.is_order
        }

    @property
    def rollouts_in_use(self) -> set[int]:
        """The rollouts from which robots have their last order."""
        found = {each.rollout for wanted in self._wanted.values() for each in wanted.values()}
        return found - {0}

    @property
    def releases_in_use(self) -> set[str]:
        """The desired releases of all robots."""
        return {each.release for wanted in self._wanted.values() for each in wanted.values()}

    def owner(self, robot: str, dataflow: str) -> Wanted | None:
        """Return the desired state of a dataflow on a robot, or None."""
        return self._wanted.get(robot, {}).get(dataflow)

    def ports_used(self, but: str) -> set[tuple[str, int]]:
        """Return the ports of links on each robot, without those of the dataflow `but`."""
        found = {
            (robot, port)
            for record in self.running
            if record.key != but
            for robot, port in record.ports.items()
        }
        return found | {
            (robot, port)
            for robot, wanted in self._wanted.items()
            for dataflow, each in wanted.items()
            if dataflow != but
            and each.group is not None
            and (port := port_of(each.group.share)) is not None
        }

    def labels(self, robot: str) -> Mapping[str, str | None]:
        """Return the labels of a robot that were changed; None is one that was removed."""
        return self._labels.get(robot, {})

    async def put(
        self,
        record: Record,
        actor: Mapping[str, Any],
        action: str,
        *,
        robots: Iterable[str] | None = None,
        gone: Collection[str] = (),
        **details: Any,
    ) -> None:
        """Store a dataflow with its shares; hold `writer.changing`.

        `robots` are those whose share has changed, by default all; those in `gone` lose theirs.

        Raises:
            ControlError: another coordinator leads now.
            StoreError: the dataflow is too large, or the store cannot be written.
        """
        robots = record.robots if robots is None else tuple(robots)
        await self._commit(
            {**actor, "action": action, "dataflow": record.key, "uuid": record.uuid, **details},
            puts=puts_for(record, robots),
            deletes=[desired_key(robot, record.key) for robot in gone],
        )
        self._records[record.key] = record
        for robot in robots:
            value = Wanted(
                record.generation, enabled=record.enabled and record.running, uuid=record.uuid
            )
            self._want(robot, record.key, value)
        for robot in gone:
            self._wanted.get(robot, {}).pop(record.key, None)
        self.bell.ring()

    async def put_orders(
        self,
        orders: Mapping[tuple[str, str], Wanted],
        audited: Mapping[str, Any],
        *,
        puts: Mapping[str, bytes] | None = None,
        deletes: Collection[str] = (),
        compares: Mapping[str, int] | None = None,
    ) -> int:
        """Store orders about releases by robot and dataflow, and what belongs to them.

        Hold `writer.changing`. Return the revision. Raises as `put`, and StoreError if one of the
        versions in `compares` differs.
        """
        encoded = {desired_key(*key): msgspec.json.encode(each) for key, each in orders.items()}
        await self._commit(
            audited, puts={**(puts or {}), **encoded}, deletes=deletes, compares=compares
        )
        for (robot, dataflow), wanted in orders.items():
            self._want(robot, dataflow, wanted)
        self.bell.ring()
        return self._revision

    def follow(self, robot: str, dataflow: str, wanted: Wanted, revision: int, head: Head) -> None:
        """Take over a desired state that was written elsewhere."""
        self._want(robot, dataflow, wanted)
        self._revision, self.head = max(self._revision, revision), head
        self.bell.ring()

    async def delete(self, records: Iterable[Record], actor: Mapping[str, Any]) -> None:
        """Forget dataflows and their shares; hold `writer.changing`. Raises as `put`."""
        for record in records:
            robots = [robot for robot in self._wanted if self._is_share(robot, record)]
            await self._commit(
                {**actor, "action": "dataflow.clean", "dataflow": record.key, "uuid": record.uuid},
                deletes=[
                    f"{DATAFLOWS}{record.key}",
                    *(desired_key(robot, record.key) for robot in robots),
                ],
            )
            del self._records[record.key]
            self._parsed.pop(record.key, None)
            for robot in robots:
                del self._wanted[robot][record.key]
        self.bell.ring()

    async def set_labels(
        self, robot: str, labels: Mapping[str, str | None], actor: Mapping[str, Any]
    ) -> None:
        """Store the changed labels of a robot; hold `writer.changing`. Raises as `put`."""
        await self._commit(
            {**actor, "action": "robot.label", "robot": robot, "labels": dict(labels)},
            puts={f"{LABELS}{robot}": msgspec.json.encode(labels)},
        )
        self._labels[robot] = dict(labels)
        self.bell.ring()

    async def put_restored(self, restored: Restored, audited: Mapping[str, Any]) -> None:
        """Store what is settled after a restore; hold `writer.changing`. Raises as `put`."""
        await self._commit(audited, puts={RESTORED: msgspec.json.encode(restored)})
        self.restored = restored

    def _is_share(self, robot: str, record: Record) -> bool:
        owner = self.owner(robot, record.key)
        return owner is not None and owner.uuid == record.uuid

    def _want(self, robot: str, dataflow: str, wanted: Wanted) -> None:
        self._wanted.setdefault(robot, {})[dataflow] = wanted

    async def _commit(self, audited: Mapping[str, Any], **change: Any) -> None:
        try:
            self._revision, self.head = await self.writer.commit(audited, **change)
        except StoreError as error:
            if error.code is Code.UNKNOWN:
                _log.warning("a change may not have been written; reading the store")
                await uninterrupted(self.load())
            raise
        _log.debug("revision %d: %s", self._revision, audited["action"])


def checked(descriptor: Mapping[str, Any], path: str) -> Dataflow:
    """Return the dataflow that a descriptor describes. Raises DataflowError if it is invalid."""
    return from_descriptor(descriptor, path=Path(path))
