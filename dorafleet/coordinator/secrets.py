"""The secrets of the fleet: sealed in the store, and on their way to robots.

The coordinator never has a value. It has it sealed for each robot that was known when it was set,
and says which robots lack it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import NODE_LIST, Ref
from dorad.control.messages.agent import AGENT_SECRETS, SealedSecret, SecretsChange
from dorad.control.session import HandlerTable
from dorad.dataflow.errors import TextError
from dorad.dataflow.secrets import check_secret_name
from dorafleet.coordinator import secretbook as book
from dorafleet.coordinator.asking import ANSWER_S, ask
from dorafleet.coordinator.reports import MAX_NAME, check_secrets
from dorafleet.coordinator.secretbook import Place, Recipient, Sealed, SecretRecord
from dorafleet.coordinator.secretmessages import (
    SECRET_LIST,
    SECRET_RECIPIENTS,
    SECRET_REMOVE,
    SECRET_SET,
    RobotSecret,
    Secret,
    SecretList,
    SecretRecipients,
)
from dorafleet.coordinator.stored import damaged, read
from dorafleet.coordinator.writing import actor_of, uninterrupted
from dorafleet.inventory import syntax
from dorafleet.store.errors import Code, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.messages import NodeList
    from dorad.control.server import Call
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.secretmessages import SecretQuery, SecretRef, SecretSet
    from dorafleet.coordinator.writing import Writer
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
        self._records: dict[Place, SecretRecord] = {}
        self._sealed: dict[Place, dict[str, Sealed]] = {}
        self._keys: dict[str, str] = {}
        """The last public key of each robot, as it is stored."""
        self._changed = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[AsyncClient | None, float]] = {}
        """Robots that have failed to take secrets: on which connection, and until when they are
        left alone."""

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        self._records.clear()
        self._sealed.clear()
        for entry, record in await read(self._store, RECORDS, SecretRecord):
            if entry.key != _record_key((record.name, record.target)):
                raise damaged(self._store, entry, f"it describes `{record.name}`")
            self._records[record.name, record.target] = record
        for entry, sealed in await read(self._store, SEALED, Sealed):
            name, *rest = entry.key.removeprefix(SEALED).split("/")
            if len(rest) != 2:
                raise damaged(self._store, entry, "its key is not that of a sealed secret")
            self._sealed.setdefault((name, unquote(rest[0])), {})[rest[1]] = sealed
        found = await read(self._store, KEYS, str)
        self._keys = {entry.key.removeprefix(KEYS): key for entry, key in found}
        _log.debug("%d secrets, %d keys of robots", len(self._records), len(self._keys))

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(SECRET_LIST, self.list_all)
        table.call(SECRET_RECIPIENTS, self.recipients)
        table.call(SECRET_SET, self.set)
        table.call(SECRET_REMOVE, self.remove)
        return table

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
        return book.lacking(self._records, self._recipient(robot), names)

    def differences(self, robot: Robot) -> Iterator[tuple[str, RobotSecret]]:
        """Yield the secrets that a robot does not have as it should, by name."""
        for _, name, state in book.states(self._records, self._sealed, self._recipient(robot)):
            if state.state != "held":
                yield name, state

    async def list_all(self, _call: Call, params: SecretQuery) -> SecretList:
        """List secrets, and the nodes that run with earlier values."""
        listed = self._listed(params.name)
        if params.nodes:
            of_robots = [each for secret in listed.secrets for each in secret.robots]
            holders = {each.robot for each in of_robots if each.state != "missing"}
            answers, listed.silent = await ask(self._robots, sorted(holders), NODE_LIST, Ref())
            for secret in listed.secrets:
                for each in secret.robots:
                    if each.robot in answers:
                        each.old_nodes = _old_nodes(answers[each.robot], secret.name)
        return listed

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
        places = [place for place, sealed in self._sealed.items() if id_ in sealed]
        deletes = [_sealed_key(place, id_) for place in places]
        if id_ in self._keys:
            deletes.append(f"{KEYS}{id_}")
        for at in range(0, len(deletes), MAX_PARTS):
            await self._writer.keep({}, deletes[at : at + MAX_PARTS])
        self._keys.pop(id_, None)
        for place in places:
            del self._sealed[place][id_]

    async def recipients(self, _call: Call, params: SecretRef) -> SecretRecipients:
        """Return the robots that a value is to be sealed for."""
        target = self._checked(params.name, params.target)
        version = book.next_version(self._records, params.name, time.time())
        keys: dict[str, str] = {}
        lacking: dict[str, str] = {}
        others: dict[str, str] = {}
        trial = SecretRecord(params.name, target, version, 0.0, "")
        for robot in self._robots.all:
            recipient = self._recipient(robot)
            if not book.matches(target, robot.id, recipient.labels):
                continue
            chosen = book.wanted({**self._records, (params.name, target): trial}, recipient)
            if chosen[params.name] is not trial:
                others[robot.id] = chosen[params.name].target
            if recipient.key:
                keys[robot.id] = recipient.key
            else:
                held = recipient.held
                lacking[robot.id] = (
                    "it has never connected, so its key is not known"
                    if held is None
                    else held.refused.get("", book.OLD_AGENT)[: book.MAX_REASON]
                )
        return SecretRecipients(version=version, keys=keys, lacking=lacking, others=others)

    async def set(self, call: Call, params: SecretSet) -> SecretList:
        """Store a sealed value, or a further part of it."""
        place = (params.name, self._checked(params.name, params.target))
        if len(params.sealed) > MAX_PARTS:
            raise ControlError("too-large", f"at most {MAX_PARTS} robots in one message")
        new = {
            robot: Sealed(params.version, params.keys.get(robot, ""), text)
            for robot, text in params.sealed.items()
        }
        for robot in new:
            self._robots.get(robot)
        async with self._writer.changing:
            before = self._records.get(place)
            further = before is not None and before.version == params.version
            if not further and params.version <= book.newest(self._records, params.name):
                raise ControlError(
                    "conflict",
                    f"secret {params.name} was set meanwhile by another command",
                    "run the command again",
                )
            await self._forget_removed()
            self._check_room(place, new, further=further)
            record = SecretRecord(
                *place, params.version, time.time(), str(actor_of(call)["peer"])[:MAX_NAME]
            )
            kept = self._sealed.get(place, {})
            stale = [] if further else [robot for robot in kept if robot not in new]
            await self._commit(
                {
                    **actor_of(call),
                    "action": "secret.set",
                    "secret": params.name,
                    "for": place[1],
                    "version": params.version,
                    "robots": sorted(new),
                },
                record,
                new,
                stale,
            )
        self.mark()
        return self._listed(params.name)

    async def remove(self, call: Call, params: SecretRef) -> SecretList:
        """Remove a secret: from the store, and from its robots as soon as they can be reached."""
        name = params.name
        async with self._writer.changing:
            places = [
                (each, target)
                for (each, target), record in self._records.items()
                if each == name and params.target in (None, target) and not record.removed
            ]
            if not places and params.target is None and self._only_there(name):
                places = [(name, book.ALL)]
            if not places:
                what = f" for `{params.target}`" if params.target else ""
                raise ControlError(
                    "not-found", f"there is no secret `{name}`{what}", "`dorafleet secret list`"
                )
            for place in places:
                version = book.next_version(self._records, name, time.time())
                actor = actor_of(call)
                record = SecretRecord(
                    *place, version, time.time(), str(actor["peer"])[:MAX_NAME], removed=True
                )
                entry = {**actor, "action": "secret.remove", "secret": name, "for": place[1]}
                await self._commit(entry, record, {}, list(self._sealed.get(place, {})))
        self.mark()
        return self._listed(name)

    def _only_there(self, name: str) -> bool:
        """Return True if only robots know a secret of this name."""
        return any(each.secrets and name in each.secrets.held for each in self._robots.all)

    def _checked(self, name: str, target: str | None) -> str:
        """Return the target of a secret. Raises ControlError."""
        try:
            check_secret_name(name)
            if target is None:
                raise ControlError("bad-request", "no robot and no label is named")
            label, equals, value = target.partition("=")
            if equals:
                syntax.label(label)
                syntax.label(value)
        except TextError as error:
            raise ControlError("bad-request", f"`{name}` {error.message}", error.hint) from None
        if not equals and target != book.ALL:
            self._robots.get(target)
        return target

    async def _forget_removed(self) -> None:
        """Make room: a robot that was away all the time keeps a secret as an unknown one."""
        removed = [place for place, record in self._records.items() if record.removed]
        if len(self._records) < MAX_RECORDS or not removed:
            return
        oldest = min(removed, key=lambda place: self._records[place].at)
        await self._writer.keep({}, [_record_key(oldest)])
        del self._records[oldest]

    def _check_room(self, place: Place, new: Mapping[str, Sealed], *, further: bool) -> None:
        if place not in self._records and len(self._records) >= MAX_RECORDS:
            raise ControlError("busy", f"there are {MAX_RECORDS} secrets, the maximum")
        others = [
            sealed
            for each, of_place in self._sealed.items()
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

    def _listed(self, only: str | None = None) -> SecretList:
        """Return the state of all secrets, or of one."""
        found = {
            place: Secret(
                name=record.name,
                target=record.target,
                version=record.version,
                set_at=record.at,
                set_by=record.by,
                robots=[],
            )
            for place, record in self._records.items()
            if not record.removed and only in (None, record.name)
        }
        for robot in self._robots.all:
            recipient = self._recipient(robot)
            for record, name, state in book.states(self._records, self._sealed, recipient):
                if only not in (None, name):
                    continue
                place = (name, "" if record is None else record.target)
                if place not in found:
                    found[place] = Secret(
                        name=name, target="", version=0, set_at=0.0, set_by="", robots=[]
                    )
                found[place].robots.append(state)
        return SecretList(secrets=[found[place] for place in sorted(found)])

    def _recipient(self, robot: Robot) -> Recipient:
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
            self._keys |= {robot: new[robot] for robot in robots}

    def _send_soon(self, robot: Robot) -> None:
        step = book.step_for(self._records, self._sealed, self._recipient(robot))
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

    async def _commit(
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
        self._records[place] = record
        of_place = self._sealed.setdefault(place, {})
        for robot in deleted:
            of_place.pop(robot, None)
        of_place.update(new)
        if not of_place:
            del self._sealed[place]


def _old_nodes(listed: NodeList, name: str) -> list[str]:
    """Return the nodes that run with an earlier value of a secret."""
    return [
        f"{each.dataflow_name or each.dataflow}/{each.node}"[:MAX_NAME]
        for each in listed.nodes
        if name in each.old_secrets
    ]


def _record_key(place: Place) -> str:
    # The value of a label may have slashes.
    return f"{RECORDS}{place[0]}/{quote(place[1], safe='')}"


def _sealed_key(place: Place, robot: str) -> str:
    return f"{SEALED}{place[0]}/{quote(place[1], safe='')}/{robot}"
