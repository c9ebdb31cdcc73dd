"""The secrets of the fleet: sealed in the store, and on their way to robots.

The coordinator never has a value. It has it sealed for each robot that was known when it was set,
and says which robots lack it.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import msgspec

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_SECRETS, SealedSecret, SecretsChange
from dorafleet.coordinator import secretbook as book
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.reports import check_secrets
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robotcalls import ANSWER_S
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.secretbook import Place, Recipient, Sealed, SecretRecord
from dorafleet.coordinator.secretmessages import RobotSecret
from dorafleet.coordinator.storerecords import damaged, read
from dorafleet.coordinator.writer import Writer, uninterrupted
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Store

RECORDS = "secret/"
SEALED = "sealed/"
KEYS = "secret-key/"

MAX_RECORDS = 2000
"""Secrets of a fleet, with those that were removed lately."""
MAX_SEALED_BYTES = 64 << 20
"""Of all sealed values together; they are in memory, too."""
MAX_PARTS = 100
"""Robots in one message of a client: one transaction."""
MAX_PUTS = 32
"""Secrets in one message to a robot."""
EVERY_S = 1.0
"""Minimum time between two looks at all robots."""
RETRY_S = 30.0
"""Time until a robot that has failed to take its secrets gets them again."""

_log = logging.getLogger(__name__)


class Secrets:
    """All secrets, in memory and in the store. Only the leader has one."""

    def __init__(self, store: Store, writer: Writer, robots: Robots, planner: Planner) -> None:
        """Start empty; `load` reads the store."""
        self._store = store
        self._writer = writer
        self._robots = robots
        self._planner = planner
        self.records: dict[Place, SecretRecord] = {}
        self.sealed: dict[Place, dict[str, Sealed]] = {}
        self._keys: dict[str, str] = {}
        """The last public key of each robot, as it is stored."""
        self._changed = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[AsyncClient | None, float]] = {}
        """Robots that have failed to take secrets: on which connection, and until when they are
        left alone."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        self.records.clear()
        self.sealed.clear()
        for entry, record in await read(self._store, RECORDS, SecretRecord):
            if entry.key != _record_key((record.name, record.target)):
                raise damaged(self._store, entry, f"it describes `{record.name}`")
            self.records[record.name, record.target] = record
        for entry, sealed in await read(self._store, SEALED, Sealed):
            name, *rest = entry.key.removeprefix(SEALED).split("/")
            if len(rest) != 2:
                raise damaged(self._store, entry, "its key is not that of a sealed secret")
            self.sealed.setdefault((name, unquote(rest[0])), {})[rest[1]] = sealed
        keys = await read(self._store, KEYS, str)
        self._keys = {entry.key.removeprefix(KEYS): key for entry, key in keys}
        _log.debug("%d secrets, %d keys of robots", len(self.records), len(self._keys))

    def mark(self) -> None:
        """Look at all robots soon: one has connected, or its labels have changed."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Send robots their secrets, until cancelled."""
        while True:
            self._changed.clear()
            await self._keep_keys()
            now = asyncio.get_running_loop().time()
            for robot in self._robots.all:
                failed_on, until = self._failed.get(robot.id, (None, 0.0))
                waits = failed_on is robot.client and until > now
                if robot.client is not None and robot.id not in self._sending and not waits:
                    self._send_soon(robot)
            await asyncio.sleep(EVERY_S)
            try:
                async with asyncio.timeout(RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                _log.debug("looking again for robots that have failed to take secrets")

    def lacking(self, robot: Robot, names: Collection[str]) -> list[str]:
        """Return those of the secrets that a robot does not have."""
        return book.lacking(self.records, self.recipient(robot), names)

    def states(self, robot: Robot) -> Iterator[tuple[SecretRecord | None, str, RobotSecret]]:
        """Yield the record, the name and the state of each secret that a robot has or lacks."""
        yield from book.states(self.records, self.sealed, self.recipient(robot))

    def differences(self, robot: Robot) -> Iterator[tuple[str, RobotSecret]]:
        """Yield the secrets that a robot does not have as it should, by name."""
        for _, name, state in self.states(robot):
            if state.state != "held":
                yield name, state

    async def forget_robot(self, id_: str) -> None:
        """Remove what is sealed for a robot that is revoked, there as well if it can be reached."""
        robot = self._robots.get(id_)
        if robot.client is not None and robot.secrets is not None and robot.secrets.held:
            change = SecretsChange(epoch=self._writer.epoch, removes=list(robot.secrets.held))
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._robots.call(id_, AGENT_SECRETS, change)
                _log.info("robot `%s` has removed its secrets", id_)
            except (ControlError, TimeoutError) as error:
                _log.warning("robot `%s` may keep its secrets: %s", id_, error or "no answer")
        robot.secrets = None
        places = [place for place, sealed in self.sealed.items() if id_ in sealed]
        deletes = [_sealed_key(place, id_) for place in places]
        if id_ in self._keys:
            deletes.append(f"{KEYS}{id_}")
        for at in range(0, len(deletes), MAX_PARTS):
            await self._writer.keep({}, deletes[at : at + MAX_PARTS])
        self._keys.pop(id_, None)
        for place in places:
            # The secret may have been removed meanwhile.
            self.sealed.get(place, {}).pop(id_, None)

    def recipient(self, robot: Robot) -> Recipient:
        """Return what decides which secrets a robot gets."""
        held = robot.secrets
        key = self._keys.get(robot.id, "") if held is None else held.key
        return Recipient(robot.id, self._planner.labels(robot), key, held)

    async def _keep_keys(self) -> None:
        """Store the keys of robots, so that values can be sealed for those that are away."""
        new = {
            robot.id: robot.secrets.key
            for robot in self._robots.all
            if robot.secrets is not None
            and robot.secrets.key
            and robot.secrets.key != self._keys.get(robot.id)
        }
        for robots in (list(new)[at : at + MAX_PARTS] for at in range(0, len(new), MAX_PARTS)):
            puts = {f"{KEYS}{robot}": msgspec.json.encode(new[robot]) for robot in robots}
            try:
                await self._writer.keep(puts)
            except StoreError as error:
                _log.warning("keys of robots are not stored: %s", error.message)
                return
            # One that was removed meanwhile has no key any more.
            self._keys |= {robot: new[robot] for robot in robots if self._robots.find(robot)}

    def _send_soon(self, robot: Robot) -> None:
        step = book.step_for(self.records, self.sealed, self.recipient(robot))
        if not step.puts and not step.removes:
            self._failed.pop(robot.id, None)
            return
        task = asyncio.create_task(
            self._send(robot, step.puts, step.removes), name=f"secrets of {robot.id}"
        )
        self._sending[robot.id] = task
        task.add_done_callback(lambda _: self._sending.pop(robot.id, None))

    async def _send(self, robot: Robot, puts: list[SealedSecret], removes: list[str]) -> None:
        """Send a robot its secrets, and take what it has then."""
        _log.info(
            "robot `%s` gets %d secrets, %d are removed there", robot.id, len(puts), len(removes)
        )
        until = asyncio.get_running_loop().time() + RETRY_S
        self._failed[robot.id] = (robot.client, until)
        try:
            for at in range(0, max(1, len(puts)), MAX_PUTS):
                change = SecretsChange(
                    epoch=self._writer.epoch,
                    puts=puts[at : at + MAX_PUTS],
                    removes=removes if at == 0 else [],
                )
                held = await self._robots.call(robot.id, AGENT_SECRETS, change)
                check_secrets(held)
                robot.secrets = held
        except ControlError as error:
            _log.warning("robot `%s` does not take its secrets: %s", robot.id, error)
            return
        if not held.refused:
            del self._failed[robot.id]
        self._robots.changed(robot)

    async def make_room(self) -> None:
        """Forget the oldest secret that was removed, if there are too many.

        A robot that was away all the time keeps it as an unknown one.
        """
        removed = [place for place, record in self.records.items() if record.removed]
        if len(self.records) < MAX_RECORDS or not removed:
            return
        oldest = min(removed, key=lambda place: self.records[place].at)
        await self._writer.keep({}, [_record_key(oldest)])
        del self.records[oldest]

    def check_room(self, place: Place, new: Mapping[str, Sealed], *, further: bool) -> None:
        """Raise ControlError if there is no room for a value."""
        if place not in self.records and len(self.records) >= MAX_RECORDS:
            raise ControlError("busy", f"there are {MAX_RECORDS} secrets, the maximum")
        others = [
            sealed
            for each, of_place in self.sealed.items()
            for robot, sealed in of_place.items()
            if each != place or (further and robot not in new)
        ]
        size = sum(len(each.sealed) for each in (*others, *new.values()))
        if size > MAX_SEALED_BYTES:
            raise ControlError(
                "too-large",
                f"the sealed values of all secrets would have {size >> 20} MiB, more than"
                f" {MAX_SEALED_BYTES >> 20}",
                "set it for fewer robots, or remove secrets that are not needed",
            )

    async def commit(
        self,
        entry: Mapping[str, Any],
        record: SecretRecord,
        new: Mapping[str, Sealed],
        deleted: Collection[str],
    ) -> None:
        """Store a record with its sealed values. Hold `writer.changing`."""
        place = (record.name, record.target)
        puts = {
            _record_key(place): msgspec.json.encode(record),
            **{_sealed_key(place, robot): msgspec.json.encode(each) for robot, each in new.items()},
        }
        deletes = [_sealed_key(place, robot) for robot in deleted]
        try:
            for at in range(0, len(deletes), MAX_PARTS):
                await self._writer.keep({}, deletes[at : at + MAX_PARTS])
            await self._writer.commit(entry, puts=puts)
        except StoreError as error:
            if error.code is Code.UNKNOWN:
                _log.warning("a secret may not have been written; reading the store")
                await uninterrupted(self.load())
            raise
        self.records[place] = record
        of_place = self.sealed.setdefault(place, {})
        for robot in deleted:
            of_place.pop(robot, None)
        of_place.update(new)
        if not of_place:
            del self.sealed[place]


def _record_key(place: Place) -> str:
    # The value of a label may have slashes.
    return f"{RECORDS}{place[0]}/{quote(place[1], safe='')}"


def _sealed_key(place: Place, robot: str) -> str:
    return f"{SEALED}{place[0]}/{quote(place[1], safe='')}/{robot}"
