"""The deployments and labels of the fleet: in memory, and in the store with every change."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dorad.bell import Bell
from dorad.control.naming import find
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import Dataflow
from dorad.dataflow.topology import changes
from dorafleet.coordinator.audit import Head, read_tail
from dorafleet.coordinator.deployments import (
    DEPLOYMENTS,
    Deployment,
    by_of,
    with_run,
    without_run,
)
from dorafleet.coordinator.records import (
    DESIRED,
    LABELS,
    DataflowRecord,
    Restored,
    RobotAssignment,
    desired_key,
    desired_share,
)
from dorafleet.coordinator.shares import port_of
from dorafleet.coordinator.storerecords import damaged, read
from dorafleet.coordinator.writer import Writer, uninterrupted
from dorafleet.store.backup import RESTORED
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Store

MAX_DELETES = 100
"""Keys that one transaction deletes."""

_log = logging.getLogger(__name__)


class Fleet:
    """The desired state in the store. Only the leader has one, and only the leader writes."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        on_desired: Callable[[Iterable[str]], None] = lambda _: None,
        elsewhere: Callable[[], Iterable[str]] = tuple,
        instance: Callable[[str], DataflowRecord | None] = lambda _: None,
    ) -> None:
        """Start empty; `load` reads the store.

        `on_desired` is called with the robots whose desired state has changed. `elsewhere` returns
        the dataflows that only robots know, for errors about a name. `instance` returns the release
        over several machines with a name or UUID, as a record.
        """
        self.writer = writer
        self._on_desired = on_desired
        self._elsewhere = elsewhere
        self._find_instance = instance
        self.bell = Bell()
        """Rings at every change of a dataflow, desired or measured."""
        self.head: Head
        """The end of the audit."""
        self.restored: Restored | None = None
        self._store = store
        self._revision = 0
        self.term_since = 0
        """What is ordered in this term has higher generations."""
        self.deployments: dict[str, Deployment] = {}
        """By name. Only this class changes it."""
        self._versions: dict[str, int] = {}
        self._wanted: dict[str, dict[str, RobotAssignment]] = {}
        self._labels: dict[str, dict[str, str | None]] = {}
        self._parsed: dict[str, tuple[str, int, Dataflow]] = {}
        """The last dataflow of each key, with its UUID and generation."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError or AuditError."""
        self.head = (await read_tail(self._store)).head
        revision = (await self._store.get("", limit=1)).revision
        self.deployments, self._versions = {}, {}
        for entry, each in await read(self._store, DEPLOYMENTS, Deployment):
            name = entry.key.removeprefix(DEPLOYMENTS)
            for described in (each.name, name if each.run is None else each.run.key):
                if described != name:
                    raise damaged(self._store, entry, f"it describes `{described}`")
            self.deployments[each.name] = each
            self._versions[each.name] = entry.version
        self._wanted = {}
        for entry, wanted in await read(self._store, DESIRED, RobotAssignment):
            robot, _, dataflow = entry.key.removeprefix(DESIRED).partition("/")
            self._want(robot, dataflow, wanted)
        self._labels = {
            entry.key.removeprefix(LABELS): labels
            for entry, labels in await read(self._store, LABELS, dict[str, str | None])
        }
        restored = await read(self._store, RESTORED, Restored)
        self.restored = restored[0][1] if restored else None
        self._revision = max(self._revision, revision)
        self.term_since = self.term_since or self._revision
        _log.debug("%d deployments at revision %d", len(self.deployments), self._revision)

    @property
    def store_name(self) -> str:
        """Where the store is, for people."""
        return self._store.name

    @property
    def records(self) -> list[DataflowRecord]:
        """All dataflows that were started, the oldest first."""
        return sorted(self._runs(), key=lambda record: record.started_at)

    @property
    def running(self) -> list[DataflowRecord]:
        """The dataflows that have not ended, the oldest first."""
        return [record for record in self.records if record.running]

    @property
    def next_generation(self) -> int:
        """A generation above all earlier ones.

        It follows the revision of the store, which never falls, not even after a restore.
        """
        return self._revision + 1

    def find(self, wanted: str | None, *, ended_too: bool = False) -> DataflowRecord:
        """Return the dataflow with this name or UUID. Raises ControlError."""
        if wanted is not None and (instance := self.instance(wanted)) is not None:
            return instance
        records = self.records
        return records[find(records, wanted, ended_too=ended_too, elsewhere=self._elsewhere)]

    def get(self, key: str) -> DataflowRecord | None:
        """Return the dataflow with this key that was started, or None."""
        deployment = self.deployments.get(key)
        return None if deployment is None else deployment.run

    def version(self, name: str) -> int:
        """Return the version of a deployment, 0 if there is none: every change has another one."""
        return self._versions.get(name, 0)

    def instance(self, wanted: str) -> DataflowRecord | None:
        """Return the release over several machines with a name or UUID, None if there is none.

        A dataflow that was started and runs comes before one of the same name.
        """
        if any(each.running and wanted in (each.name, each.uuid) for each in self._runs()):
            return None
        return self._find_instance(wanted)

    def still_runs(self, record: DataflowRecord) -> bool:
        """Return True until a run of a dataflow, or an instance of a release, has ended."""
        now = self.get(record.key)
        if now is None:
            return self.instance(record.uuid) is not None
        return now.uuid == record.uuid and now.running

    def run(self, uuid: str) -> DataflowRecord | None:
        """Return the dataflow with this UUID, or None."""
        return next((each for each in self._runs() if each.uuid == uuid), None)

    def dataflow(self, record: DataflowRecord) -> Dataflow:
        """Return the checked dataflow of a record. Raises DataflowError."""
        known = self._parsed.get(record.key)
        if known is None or known[:2] != (record.uuid, record.generation):
            parsed = checked(record.descriptor, record.path)
            known = self._parsed[record.key] = (record.uuid, record.generation, parsed)
        return known[2]

    def changes(self, record: DataflowRecord) -> list[str]:
        """Return how a dataflow differs from the file it was started from, in lines."""
        if record.original == record.descriptor:
            return []
        return changes(checked(record.original, record.path), self.dataflow(record))

    def desired(self, robot: str) -> Mapping[str, RobotAssignment]:
        """Return what a robot should run, by dataflow."""
        return self._wanted.get(robot, {})

    def wanted(self, robot: str) -> dict[str, RobotAssignment]:
        """Return the desired shares of a robot, by dataflow, without those of releases."""
        return {
            dataflow: wanted
            for dataflow, wanted in self._wanted.get(robot, {}).items()
            if not wanted.is_order
        }

    def orders(self, robot: str) -> dict[str, RobotAssignment]:
        """Return the desired releases of a robot, by dataflow."""
        return {
            dataflow: wanted
            for dataflow, wanted in self._wanted.get(robot, {}).items()
            if wanted.is_order
        }

    @property
    def rollouts_in_use(self) -> set[int]:
        """The rollouts from which robots have their last order."""
        used = {each.rollout for wanted in self._wanted.values() for each in wanted.values()}
        return used - {0}

    @property
    def releases_in_use(self) -> set[str]:
        """The desired releases of all robots."""
        return {each.release for wanted in self._wanted.values() for each in wanted.values()}

    def owner(self, robot: str, dataflow: str) -> RobotAssignment | None:
        """Return the desired state of a dataflow on a robot, or None."""
        return self._wanted.get(robot, {}).get(dataflow)

    def ports_used(self, but: str) -> set[tuple[str, int]]:
        """Return the ports of links on each robot, without those of the dataflow `but`."""
        ports = {
            (robot, port)
            for record in self.running
            if record.key != but
            for robot, port in record.ports.items()
        }
        return ports | {
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
        record: DataflowRecord,
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
        before = self.deployments.get(record.key)
        deployment = with_run(before, record, action, by_of(actor), time.time())
        share = desired_share(record)
        await self._commit(
            {**actor, "action": action, "dataflow": record.key, "uuid": record.uuid, **details},
            deployment,
            puts=dict.fromkeys(
                (desired_key(robot, record.key) for robot in robots), msgspec.json.encode(share)
            ),
            deletes=[desired_key(robot, record.key) for robot in gone],
        )
        for robot in robots:
            self._want(robot, record.key, share)
        for robot in gone:
            self._wanted.get(robot, {}).pop(record.key, None)
        self._changed([*record.robots, *gone])

    async def put_orders(
        self,
        orders: Mapping[tuple[str, str], RobotAssignment],
        audited: Mapping[str, Any],
        *,
        deployment: Deployment | None = None,
        puts: Mapping[str, bytes] | None = None,
        deletes: Collection[str] = (),
    ) -> None:
        """Store orders about releases by robot and dataflow, and what belongs to them.

        Hold `writer.changing`. Raises as `put`, and StoreError if the store has another version of
        the deployment than the one that changes here.
        """
        encoded = {desired_key(*key): msgspec.json.encode(each) for key, each in orders.items()}
        await self._commit(audited, deployment, puts={**(puts or {}), **encoded}, deletes=deletes)
        for (robot, dataflow), wanted in orders.items():
            self._want(robot, dataflow, wanted)
        self._changed(robot for robot, _ in orders)

    def follow(
        self, robot: str, dataflow: str, wanted: RobotAssignment, revision: int, head: Head
    ) -> None:
        """Take over a desired state that was written elsewhere."""
        self._want(robot, dataflow, wanted)
        self._revision, self.head = max(self._revision, revision), head
        self._changed([robot])

    async def delete(self, records: Iterable[DataflowRecord], actor: Mapping[str, Any]) -> None:
        """Forget dataflows and their shares; hold `writer.changing`. Raises as `put`."""
        for record in records:
            robots = [robot for robot in self._wanted if self._is_share(robot, record)]
            before = self.deployments[record.key]
            left = without_run(before)
            await self._commit(
                {**actor, "action": "dataflow.clean", "dataflow": record.key, "uuid": record.uuid},
                left,
                deletes=[
                    *([before.key] if left is None else []),
                    *(desired_key(robot, record.key) for robot in robots),
                ],
            )
            if left is None:
                del self.deployments[record.key], self._versions[record.key]
            self._parsed.pop(record.key, None)
            for robot in robots:
                del self._wanted[robot][record.key]
            self._changed(robots)

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

    async def remove_robot(
        self, robot: str, audited: Mapping[str, Any], deletes: Sequence[str]
    ) -> None:
        """Forget what a robot shall run and its labels, and delete these keys, the last one last.

        Hold `writer.changing`. Raises as `put`.
        """
        keys = [desired_key(robot, dataflow) for dataflow in self._wanted.get(robot, {})]
        keys += [f"{LABELS}{robot}"] if robot in self._labels else []
        keys += deletes
        for at in range(0, len(keys), MAX_DELETES):
            await self._commit(audited, deletes=keys[at : at + MAX_DELETES])
        self._wanted.pop(robot, None)
        self._labels.pop(robot, None)
        self.bell.ring()

    async def put_restored(self, restored: Restored, audited: Mapping[str, Any]) -> None:
        """Store what is settled after a restore; hold `writer.changing`. Raises as `put`."""
        await self._commit(audited, puts={RESTORED: msgspec.json.encode(restored)})
        self.restored = restored

    def _runs(self) -> Iterator[DataflowRecord]:
        return (each.run for each in self.deployments.values() if each.run is not None)

    def _is_share(self, robot: str, record: DataflowRecord) -> bool:
        owner = self.owner(robot, record.key)
        return owner is not None and owner.uuid == record.uuid

    def _changed(self, robots: Iterable[str]) -> None:
        self.bell.ring()
        self._on_desired(robots)

    def _want(self, robot: str, dataflow: str, wanted: RobotAssignment) -> None:
        self._wanted.setdefault(robot, {})[dataflow] = wanted

    async def _commit(
        self,
        audited: Mapping[str, Any],
        deployment: Deployment | None = None,
        *,
        puts: Mapping[str, bytes] | None = None,
        deletes: Collection[str] = (),
    ) -> None:
        puts, compares = dict(puts or {}), {}
        if deployment is not None:
            puts[deployment.key] = msgspec.json.encode(deployment)
            compares[deployment.key] = self.version(deployment.name)
        try:
            self._revision, self.head = await self.writer.commit(
                audited, puts=puts, deletes=deletes, compares=compares
            )
        except StoreError as error:
            if error.code is Code.UNKNOWN:
                _log.warning("a change may not have been written; reading the store")
                await uninterrupted(self.load())
            raise
        if deployment is not None:
            self.deployments[deployment.name] = deployment
            self._versions[deployment.name] = self._revision
        _log.debug("revision %d: %s", self._revision, audited["action"])


def checked(descriptor: Mapping[str, Any], path: str) -> Dataflow:
    """Return the dataflow that a descriptor describes. Raises DataflowError if it is invalid."""
    return from_descriptor(descriptor, path=Path(path))
