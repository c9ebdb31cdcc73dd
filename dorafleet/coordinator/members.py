"""The machines of the fleet in the store, which is the truth; a cluster file is only imported.

`machine/<id>` is there for each machine, `membership` once a cluster file was imported. A store of
an earlier version has neither: the file of the first start is imported then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from dorad.control.errors import ControlError
from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.settings import Amounts
from dorad.int64 import Int64
from dorad.natural import natural
from dorad.phrases import first_of
from dorad.problems import ProblemError
from dorafleet.coordinator.membermessages import FleetDifference, FleetMachine, MachineCapacity
from dorafleet.coordinator.storerecords import damaged, read
from dorafleet.coordinator.writer import COORDINATOR, Writer
from dorafleet.inventory import syntax
from dorafleet.inventory.model import ZENOH_PORT, Cluster, Machine
from dorafleet.rollout.messages import DriftRow
from dorafleet.store.model import Store

MACHINES = "machine/"
IMPORTED = "membership"

CHUNK = 30
"""Machines in one transaction."""
MAX_MACHINES = 10_000
MAX_LABELS = 100
MAX_DEVICES = 100
MAX_TEXT = 255
"""Characters of an id, a host, a user or a device."""
MAX_PORT = 65535
MAX_CORES = 10_000.0
MAX_GPUS = 10_000
MAX_NAMED = 5
"""Robots that a line in the log names."""

FIRST_IMPORT = {**COORDINATOR, "action": "fleet.import"}
"""For the audit."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class StoredMachine(msgspec.Struct, frozen=True):
    """The value of `machine/<id>`."""

    place: Int64
    """Its place in the order of the fleet."""
    machine: FleetMachine
    since: Int64 = 0
    """The next generation when it was added: earlier orders are not about it."""


class StoredImport(msgspec.Struct, frozen=True):
    """The value of `membership`: when the first cluster file was imported."""

    at: float


class Members:
    """The machines of the fleet. Only the leader has them, and only it writes them."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        read_file: Callable[[], Cluster] | None = None,
        on_size: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`read_file` reads the coordinator's own cluster file, for differences from it.

        `on_size` is called with the number of machines when some have come or gone.
        """
        self.writer = writer
        self.machines: dict[str, Machine] = {}
        """All machines by id, in their order. Others look here, so it is always the same object."""
        self.since: dict[str, int] = {}
        """The next generation when each was added."""
        self._store = store
        self._read_file = read_file
        self._on_size = on_size
        self._places: dict[str, int] = {}

    async def load(self, given: Sequence[Machine]) -> None:
        """Read the machines; import those `given` if the store has never had any.

        Raises:
            ControlError: another coordinator leads now.
            StoreError: the store cannot be read or written, or a record is damaged.
        """
        imported = await read(self._store, IMPORTED, StoredImport)
        if not any(entry.key == IMPORTED for entry, _ in imported):
            # With the last part: an import that was interrupted begins again.
            done = {IMPORTED: msgspec.json.encode(StoredImport(time.time()))}
            *first, last = [*parts(list(given))] or [[]]
            async with self.writer.changing:
                for part in first:
                    await self._write(part, FIRST_IMPORT)
                await self._write(last, FIRST_IMPORT, more=done)
            _log.info("%d machines of the cluster file are now in the store", len(given))
            return
        stored = []
        for entry, value in await read(self._store, MACHINES, StoredMachine):
            try:
                machine = machine_of(value.machine)
            except ControlError as error:
                raise damaged(self._store, entry, error.message) from None
            if entry.key != f"{MACHINES}{machine.id}":
                raise damaged(self._store, entry, f"it describes `{machine.id}`")
            stored.append((value, machine))
        self.machines.clear()
        for value, machine in sorted(stored, key=lambda each: (each[0].place, each[1].id)):
            self.machines[machine.id] = machine
            self._places[machine.id] = value.place
            self.since[machine.id] = value.since
        change = difference(self.machines, given)
        if change.added or change.changed or change.unlisted:
            _log.warning("%s", DIFFERS.format(summary(change)))

    async def put(
        self,
        machines: Sequence[Machine],
        audited: Mapping[str, Any],
        generation: int,
        deletes: Collection[str] = (),
    ) -> None:
        """Store at most `CHUNK` machines that are new, or have other keys, and delete these keys.

        `generation` is the next one, since which new ones are in the fleet.
        Hold `writer.changing`. Raises as `load`.
        """
        await self._write(machines, audited, generation, deletes)
        self._on_size(len(self.machines))

    async def _write(
        self,
        machines: Sequence[Machine],
        audited: Mapping[str, Any],
        generation: int = 0,
        deletes: Collection[str] = (),
        more: Mapping[str, bytes] | None = None,
    ) -> None:
        puts = dict(more or {})
        places: dict[str, int] = {}
        since: dict[str, int] = {}
        last = max(self._places.values(), default=0)
        for machine in machines:
            last += machine.id not in self._places
            place = places[machine.id] = self._places.get(machine.id, last)
            since[machine.id] = self.since.get(machine.id, generation)
            value = StoredMachine(place, sent_of(machine), since[machine.id])
            puts[f"{MACHINES}{machine.id}"] = msgspec.json.encode(value)
        record = {**audited, "robots": [machine.id for machine in machines]}
        await self.writer.commit(record, puts=puts, deletes=deletes)
        self.machines.update((machine.id, machine) for machine in machines)
        self._places |= places
        self.since |= since

    def key(self, id_: str) -> str:
        """Return the key of a machine in the store."""
        return f"{MACHINES}{id_}"

    def forget(self, id_: str) -> None:
        """Forget a machine that is no longer in the store."""
        del self.machines[id_]
        del self._places[id_], self.since[id_]
        self._on_size(len(self.machines))

    async def drift(self) -> list[DriftRow]:
        """Return the differences between the coordinator's cluster file and the store."""
        if self._read_file is None:
            return []
        try:
            cluster = await asyncio.to_thread(self._read_file)
        except (DataflowError, ProblemError) as error:
            return [_row("", "readable", f"{error}"[:MAX_TEXT], "mend the cluster file")]
        change = difference(self.machines, cluster.machines)
        path = str(cluster.path)
        imports = f"dorafleet up {path} imports the file"
        rows = [
            _row(id_, "not in the fleet", f"in {path}", f"{imports}; or remove it from the file")
            for id_ in change.added
        ]
        rows += [
            _row(id_, line.rpartition(" -> ")[0], line, f"{imports}; or change the file")
            for id_, lines in change.changed.items()
            for line in lines
        ]
        rows += [
            _row(id_, "in the fleet", f"not in {path}", f"add it to the file; or {imports}")
            for id_ in change.unlisted
        ]
        return rows


DIFFERS = (
    "the cluster file differs from the store, which counts: {}; `dorafleet drift` shows it, "
    "`dorafleet up` imports the file"
)


def _row(robot: str, desired: str, there: str, way_back: str) -> DriftRow:
    return DriftRow(
        robot=robot,
        dataflow="",
        what="cluster file",
        desired=desired,
        found=there,
        way_back=way_back,
    )


def difference(
    known: Mapping[str, Machine], wanted: Iterable[Machine], removes: Iterable[str] = ()
) -> FleetDifference:
    """Return what makes the `wanted` machines those of the fleet. A pure function."""
    listed = {machine.id: machine for machine in wanted}
    removed = [id_ for id_ in known if id_ in set(removes)]
    return FleetDifference(
        added=[id_ for id_ in listed if id_ not in known],
        changed={
            id_: lines
            for id_, machine in listed.items()
            if id_ in known and (lines := list(_changes(known[id_], machine)))
        },
        removed=removed,
        unlisted=[id_ for id_ in known if id_ not in listed and id_ not in removed],
    )


def _changes(before: Machine, after: Machine) -> Iterator[str]:
    """Yield the keys that differ, each in a line."""
    old, new = _flat(before), _flat(after)
    for key in sorted({*old, *new}, key=natural):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}"


def _flat(machine: Machine) -> dict[str, str]:
    fields = asdict(sent_of(machine))
    labels, capacity = fields.pop("labels"), asdict(fields.pop("capacity"))
    fields |= {f"label {name}": value for name, value in labels.items()}
    fields |= {f"capacity.{name}": value for name, value in capacity.items()}
    return {
        key: ", ".join(value) if isinstance(value, list) else str(value)
        for key, value in fields.items()
        if value is not None
    }


def summary(change: FleetDifference) -> str:
    """Return a difference in a few words."""
    parts = [
        ("adds", change.added),
        ("changes", list(change.changed)),
        ("removes", change.removed),
        ("does not have", change.unlisted),
    ]
    return "; ".join(f"it {word} {first_of(ids, MAX_NAMED)}" for word, ids in parts if ids)


def sent_of(machine: Machine) -> FleetMachine:
    """Return a machine as it is sent and stored."""
    given = machine.capacity
    derived = machine.zenoh_addr is not None and str(machine.zenoh_addr) == machine.host
    return FleetMachine(
        id=machine.id,
        host=machine.host,
        user=machine.user,
        port=machine.port,
        labels=dict(machine.labels),
        zenoh_addr=None if machine.zenoh_addr is None or derived else str(machine.zenoh_addr),
        zenoh_port=None if machine.zenoh_port == ZENOH_PORT else machine.zenoh_port,
        capacity=MachineCapacity(
            cpu=given.cpu,
            memory=given.memory,
            gpu=given.gpu,
            devices=None if given.devices is None else list(given.devices),
        ),
    )


def machine_of(sent: FleetMachine) -> Machine:
    """Return a machine that a client has sent. Raises ControlError if a key is not valid."""
    try:
        return _checked(sent)
    except TextError as error:
        message = f"machine `{sent.id[:MAX_TEXT]}`: {error.message}"
        raise ControlError("bad-request", message, error.hint) from None


def _checked(sent: FleetMachine) -> Machine:
    id_ = syntax.machine_id(_short("an id", sent.id))
    host = syntax.target(_short("a host", sent.host))
    if "@" in host:
        raise TextError("`host` names a user", "give it as `user`")
    user = None if sent.user is None else syntax.user_name(_short("a user", sent.user))
    _bounded("labels", len(sent.labels), MAX_LABELS)
    labels = {syntax.label(name): syntax.label(value) for name, value in sent.labels.items()}
    for name, port in (("port", sent.port), ("zenoh_port", sent.zenoh_port)):
        if port is not None and not 0 < port <= MAX_PORT:
            raise TextError(f"`{name}` must be from 1 to {MAX_PORT}, not {port}")
    if sent.zenoh_addr is None:
        try:
            zenoh_addr = ip_address(host)
        except ValueError:
            zenoh_addr = None
    else:
        zenoh_addr = syntax.address(_short("an address", sent.zenoh_addr))
    return Machine(
        id_,
        host,
        user,
        sent.port,
        labels=labels,
        zenoh_addr=zenoh_addr,
        zenoh_port=sent.zenoh_port or ZENOH_PORT,
        capacity=_capacity(sent.capacity),
    )


def _capacity(sent: MachineCapacity) -> Amounts:
    for name, value, limit in (
        ("cpu", sent.cpu, MAX_CORES),
        ("memory", sent.memory, 1 << 62),
        ("gpu", sent.gpu, MAX_GPUS),
    ):
        # Written so that NaN is refused, too.
        if value is not None and not 0 <= value <= limit:
            raise TextError(f"`capacity.{name}` must be from 0 to {limit:g}")
    devices = None
    if sent.devices is not None:
        _bounded("devices", len(sent.devices), MAX_DEVICES)
        for device in sent.devices:
            if not _short("a device", device).isprintable() or " " in device or not device:
                raise TextError("a device is a path or another name, without blanks", "/dev/video0")
        devices = tuple(sent.devices)
    return Amounts(sent.cpu, sent.memory, sent.gpu, devices)


def _short(what: str, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise TextError(f"{what} has at most {MAX_TEXT} characters")
    return text


def _bounded(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise TextError(f"a machine has at most {limit} {what}, not {count}")


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield as many items at a time as fit into one transaction."""
    for at in range(0, len(items), CHUNK):
        yield items[at : at + CHUNK]
