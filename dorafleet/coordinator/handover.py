"""The hand-over of a fleet from one authority to the next, robot by robot.

First each robot that connects is told to trust both. Once all do, or in the last third of the time,
they get certificates of the new authority: one that had it earlier would have no link to a robot
that does not trust it yet. The coordinator shows a certificate of the old one until the end, which
an operator or the date brings: then only the new one is trusted.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from dorad.bell import Bell
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_HANDOVER
from dorad.control.tls import GRACE_S
from dorad.phrases import first_of
from dorad.problems import ProblemError
from dorafleet.ca.authority import SHORT
from dorafleet.ca.handover import FINISHED, STARTED, mark, open_successor
from dorafleet.coordinator.authority import HAND_OVER, KEY, Authorities, HandOverRecord
from dorafleet.coordinator.stored import read
from dorafleet.coordinator.writing import COORDINATOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from dorad.control.asyncclient import AsyncClient
    from dorafleet.ca.authority import Authority
    from dorafleet.ca.handover import Successor
    from dorafleet.coordinator.grants import Grants
    from dorafleet.coordinator.writing import Writer
    from dorafleet.store.model import Store

OWNERS = "hand-over-owners/"
"""How the keys begin of how far each robot and operator has come: the new authority, the kind, the
name."""

CHECK_S = 1.0
"""Seconds between two looks at the date, and at robots that an end waits for."""

STEP_S = 30.0
"""Seconds that a robot has for one step."""
RETRY_S = 300.0
"""Seconds until a step that a robot has refused is tried again: its clock may be right then."""

AT_ONCE = 256
"""Robots that make a step at a time."""

FORCED_S = 30.0
"""Seconds for which a forced end waits for certificates of robots that are connected."""

UNKNOWN = ("unknown-method", "unsupported")
"""Codes of errors of an agent of an earlier version."""

MAX_REFUSAL = 300
"""Characters of a robot's reason."""

MAX_NAMED = 10
"""Robots in one message."""

MAX_DELETED = 100
"""Keys in one transaction."""

_FINGERPRINT = re.compile("[0-9a-f]{64}")

Progress = Literal["trusts", "certified"]
"""A robot trusts both authorities; it, or an operator, has a certificate of the new one."""

_log = logging.getLogger(__name__)


def is_lost(error: Exception) -> bool:
    """Return True if a call has failed because its connection has ended."""
    return isinstance(error, ControlError) and error.code == "unavailable"


def gives_new(record: HandOverRecord, waiting: Collection[str], now: float) -> bool:
    """Return True if robots get certificates of the new authority.

    `waiting` are those that do not trust it yet.
    """
    return not waiting or now > record.begun + (record.ends - record.begun) * 2 / 3


@dataclass(slots=True)
class _Connection:
    """The connection of a robot."""

    client: AsyncClient
    renew: Callable[[], Awaitable[None]]
    told: bool = False
    """Whether it was told which authorities to trust."""
    retry: float = 0.0
    """When a step that has failed is tried again, on the monotonic clock."""


class HandOvers:
    """The authorities that a leading coordinator signs with and trusts."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        grants: Grants,
        folder: Path,
        authorities: Authorities,
        robots: Collection[str],
        show: Callable[[Authority, str], Awaitable[None]],
    ) -> None:
        """`folder` has the authorities of the fleet; `robots` are the ids in the cluster file.

        `show` lets the server show a certificate of an authority, and trust those of a text (PEM).
        """
        self._store = store
        self._writer = writer
        self._grants = grants
        self._folder = folder
        self.current, self.record, self._successor = authorities
        self._robots = robots
        self._show = show
        self._progress: dict[str, Progress] = {}
        """By `kind/name`."""
        self._connections: dict[str, _Connection] = {}
        self._lost_at: dict[str, float] = {}
        """When the last connection of each robot ended, on the monotonic clock."""
        self._refusals: dict[str, str] = {}
        """Why a robot did not take the last hand-over."""
        self._bell = Bell()
        """Rings when a robot has made a step."""
        self._is_shown = True
        """False while the server uses other authorities, because a file could not be written."""
        self._forced = False
        self._waiting: tuple[float, list[str]] = (float("-inf"), [])
        """The last answer of `waiting`, and when it ends."""

    async def load(self) -> None:
        """Read how far each robot has come. Raises StoreError."""
        prefix = self._prefix
        self._progress = {}
        others = []
        for entry, progress in await read(self._store, OWNERS, str):
            if prefix and entry.key.startswith(prefix) and progress in ("trusts", "certified"):
                self._progress[entry.key.removeprefix(prefix)] = progress  # type: ignore[assignment]
            else:
                others.append(entry.key)
        for start in range(0, len(others), MAX_DELETED):
            await self._writer.keep({}, others[start : start + MAX_DELETED])

    @property
    def trusted(self) -> str:
        """The certificates (PEM) of all authorities that are trusted, the current one first."""
        new = self._open
        return self.current.certificate + (new.authority.certificate if new else "")

    @property
    def for_operators(self) -> Authority:
        """What signs certificates of operators: the one that will stay."""
        return self._open.authority if self._open else self.current

    def for_robot(self, robot: str) -> Authority:
        """Return what signs the next certificate of a robot that has connected."""
        new, progress = self._open, self._progress.get(f"robot/{robot}")
        if new is None or progress is None:
            return self.current
        return new.authority if progress == "certified" or self._gives_new else self.current

    def is_due(self, robot: str) -> bool:
        """Return True if a robot gets a certificate of the new authority now."""
        trusts = self._progress.get(f"robot/{robot}") == "trusts"
        return trusts and self._open is not None and self._gives_new

    def replaces(self, operator: str) -> bool:
        """Return True if an operator may have a second certificate, of the new authority."""
        holder = self._grants.holder("operator", operator)
        held = holder is not None and not holder.revoked
        return held and self.record is not None and not self._is_certified("operator", operator)

    def waiting(self) -> list[str]:
        """Return the enrolled robots that do not trust the new authority yet."""
        if time.monotonic() >= self._waiting[0]:
            found = [id_ for id_ in self._enrolled if f"robot/{id_}" not in self._progress]
            self._waiting = (time.monotonic() + CHECK_S, found)
        return self._waiting[1]

    def old(self) -> list[str]:
        """Return the enrolled robots without a certificate of the new authority."""
        if self.record is None:
            return []
        return [each for each in self._enrolled if not self._is_certified("robot", each)]

    def old_operators(self) -> list[str]:
        """Return the operators without one."""
        if self.record is None:
            return []
        now = self._grants.clock()
        return [
            each.name
            for each in self._grants.list()
            if each.kind == "operator"
            and not each.revoked
            and each.expires > now
            and not self._is_certified("operator", each.name)
        ]

    def warning(self, robot: str) -> str:
        """Return what an operator should know of a robot during or after a hand-over."""
        record = self.record
        if record is None or self._is_certified("robot", robot) or not self._is_enrolled(robot):
            return ""
        if refusal := self._refusals.get(robot):
            return f"it does not trust the new authority: {refusal}"
        if record.finished:
            return (
                f"it was away during the hand-over of the authority that ended on "
                f"{_day(record.finished)}, and trusts only the old one: `dorafleet enrol "
                f"CLUSTER.yml {robot} --again`"
            )
        if f"robot/{robot}" not in self._progress:
            return (
                "it trusts only the old authority, and must be enrolled again if it does not "
                f"connect until {_day(record.ends)}"
            )
        return ""

    async def begin(self, wanted: str, actor: Mapping[str, Any]) -> HandOverRecord:
        """Begin the hand-over to the authority of this fingerprint, which is in the folder.

        Raises:
            ControlError: the present one has not signed it, or another hand-over is open.
            StoreError: the store cannot be written.
        """
        if not _FINGERPRINT.fullmatch(wanted):
            raise ControlError("bad-request", "a fingerprint has 64 hexadecimal digits")
        async with self._writer.changing:
            if self.record is not None and self.record.open:
                if self.record.next == wanted:
                    return self.record
                raise ControlError(
                    "conflict",
                    f"the hand-over to {self.record.next[:SHORT]} is not finished",
                    "`dorafleet authority status` shows how far it is",
                )
            if wanted == self.current.fingerprint:
                raise ControlError("exists", f"{wanted[:SHORT]} is the authority already")
            new = await asyncio.to_thread(
                open_successor, self._folder, self.current, wanted, time.time()
            )
            record = HandOverRecord(self.current.fingerprint, wanted, new.begun, new.ends)
            await self._commit(record, {**actor, "action": "authority.hand-over"})
            self.record, self._successor = record, new
            self._forget_progress()
            await self._noted(STARTED)
            await self._show_now()
        _log.warning("the authority hands over to %.16s, until %s", wanted, _day(record.ends))
        return record

    async def finish(self, actor: Mapping[str, Any], *, force: bool) -> list[str]:
        """Trust only the new authority from now on; return the robots that are left behind.

        Raises:
            ControlError: there is no hand-over, or some would be left behind without `force`.
            StoreError: the store cannot be written.
        """
        if self._open is None:
            raise ControlError("conflict", "there is no hand-over that could finish")
        if force:
            await self._certify_connected()
        async with self._writer.changing:
            new, record = self._open, self.record
            if new is None or record is None:
                raise ControlError("conflict", "the hand-over has finished meanwhile")
            robots, operators = self.old(), self.old_operators()
            if not force and (robots or operators):
                raise ControlError(
                    "refused",
                    "without a certificate of the new authority are "
                    + "; ".join(
                        f"{kind} {first_of(names, MAX_NAMED)}"
                        for kind, names in (("robots", robots), ("operators", operators))
                        if names
                    ),
                    "robots get one when they connect, operators with `dorafleet operator add`; "
                    "`--force` leaves them behind: they must be enrolled again",
                )
            done = msgspec.structs.replace(record, finished=time.time())
            audited = {**actor, "action": "authority.finish", "left": robots[:MAX_DELETED]}
            await self._commit(done, audited, {KEY: record.next.encode()})
            self.current, self.record, self._forced = new.authority, done, False
            self._tell_again()
            await self._noted(FINISHED)
            await self._show_now()
        _log.warning(
            "the authority is %.16s now; left behind: %s",
            done.next,
            first_of([*robots, *(f"operator {each}" for each in operators)], MAX_NAMED) or "none",
        )
        return robots

    @contextmanager
    def connected(
        self, robot: str, client: AsyncClient, renew: Callable[[], Awaitable[None]]
    ) -> Iterator[None]:
        """Take a robot along while it is connected; `renew` gives it another certificate."""
        connection = _Connection(client, renew)
        self._connections[robot] = connection
        try:
            yield
        finally:
            if self._connections.get(robot) is connection:
                del self._connections[robot]
                self._lost_at[robot] = time.monotonic()
                self._bell.ring()

    async def enrolled(self, robot: str) -> None:
        """Record that a robot has a certificate of the current authority, and a new identity."""
        self._refusals.pop(robot, None)
        if self.record is None:
            return
        if self.record.finished:
            await self._came("robot", robot, "certified")
        elif self._progress.pop(f"robot/{robot}", None) is not None:
            await self._keep({}, [f"{self._prefix}robot/{robot}"])

    async def added(self, operator: str) -> None:
        """Record that an operator has a certificate of the authority that will stay."""
        if self.record is not None:
            await self._came("operator", operator, "certified")

    async def run(self) -> NoReturn:
        """Take along the robots that are connected, and end the hand-over on its date."""
        async with asyncio.TaskGroup() as tasks:
            ending: asyncio.Task[None] | None = None
            while True:
                await asyncio.sleep(CHECK_S)
                if not self._is_shown:
                    await self._show_now()
                record = self.record
                if record is None or time.time() > record.ends + GRACE_S:
                    continue
                due = [robot for robot, of in self._connections.items() if self._is_due(robot, of)]
                await asyncio.gather(*map(self._take_along, due[:AT_ONCE]))
                over = record.open and time.time() > record.ends
                if over and (ending is None or ending.done()):
                    # Meanwhile robots that are connected get their certificates.
                    ending = tasks.create_task(self._end())

    async def _show_now(self) -> None:
        """Let the server use the present authorities; `run` tries it again if the disk is full."""
        try:
            await self._show(self.current, self.trusted)
            self._is_shown = True
        except ControlError as error:
            self._is_shown = False
            _log.warning("the certificate of the coordinator is not replaced: %s", error)

    async def _end(self) -> None:
        try:
            await self.finish(COORDINATOR, force=True)
        except ProblemError as error:
            _log.warning("the hand-over of the authority cannot end: %s", error)

    def _is_due(self, robot: str, connection: _Connection) -> bool:
        """Return True if a robot is to be told of the authorities, or gets a certificate."""
        if time.monotonic() < connection.retry:
            return False
        return not connection.told or self.is_due(robot)

    async def _take_along(self, robot: str) -> None:
        """Let a robot make its next step; a failure is kept for `warning`."""
        connection, record = self._connections.get(robot), self.record
        if connection is None or record is None:
            return
        try:
            async with asyncio.timeout(STEP_S):
                if connection.told:
                    await connection.renew()
                    progress: Progress = "certified"
                else:
                    progress = await self._tell(connection.client, record)
                    connection.told = True
            self._refusals.pop(robot, None)
            if record is self.record:
                await self._came("robot", robot, progress)
        except (ProblemError, TimeoutError) as error:
            connection.retry = time.monotonic() + RETRY_S
            if self._connections.get(robot) is not connection or is_lost(error):
                _log.debug("robot `%s` connects again: %s", robot, error)
                return  # as it does whenever its identity changes
            unknown = isinstance(error, ControlError) and error.code in UNKNOWN
            why = "its dorad knows no hand-over: upgrade it" if unknown else str(error)
            self._refusals[robot] = (why or "it does not answer")[:MAX_REFUSAL]
            _log.warning("robot `%s` does not follow the hand-over: %s", robot, why)
        self._bell.ring()

    async def _tell(self, client: AsyncClient, record: HandOverRecord) -> Progress:
        """Tell a robot which authorities to trust. Raises ControlError."""
        assert self._successor is not None
        order = msgspec.structs.replace(self._successor.order, finished=bool(record.finished))
        trust = await client.call(AGENT_HANDOVER, order)
        if trust.trusted[-1:] != [record.next]:
            raise ControlError("refused", "it trusts another authority than it was told of")
        return "certified" if trust.certified else "trusts"

    @property
    def _open(self) -> Successor | None:
        return self._successor if self.record is not None and self.record.open else None

    @property
    def _gives_new(self) -> bool:
        assert self.record is not None
        return self._forced or gives_new(self.record, self.waiting(), time.time())

    @property
    def _enrolled(self) -> list[str]:
        return [id_ for id_ in self._robots if self._is_enrolled(id_)]

    @property
    def _prefix(self) -> str:
        return f"{OWNERS}{self.record.next[:SHORT]}/" if self.record is not None else ""

    def _is_enrolled(self, robot: str) -> bool:
        holder = self._grants.holder("robot", robot)
        return holder is not None and not holder.revoked

    def _is_certified(self, kind: str, name: str) -> bool:
        return self._progress.get(f"{kind}/{name}") == "certified"

    @property
    def _certifying(self) -> list[str]:
        """The robots that will soon have a certificate of the new authority.

        They are connected, or were just now: a robot connects again with each change.
        """
        soon = [robot for robot, of in self._connections.items() if not of.told]
        now = time.monotonic()
        recent = [robot for robot, at in self._lost_at.items() if now - at < FORCED_S]
        soon += [
            robot
            for robot in (*self._connections, *recent)
            if self._progress.get(f"robot/{robot}") == "trusts"
        ]
        return [robot for robot in soon if robot not in self._refusals]

    async def _certify_connected(self) -> None:
        """Wait until robots that are connected have new certificates, as far as they take them."""
        self._forced = True
        await self._bell.until(lambda: not self._certifying, FORCED_S)

    def _tell_again(self) -> None:
        for connection in self._connections.values():
            connection.told = False

    def _forget_progress(self) -> None:
        self._progress.clear()
        self._tell_again()
        self._refusals.clear()
        self._forced = False
        self._waiting = (float("-inf"), [])

    async def _came(self, kind: str, name: str, progress: Progress) -> None:
        if self._progress.get(f"{kind}/{name}") == progress:
            return
        key = f"{kind}/{name}"
        await self._keep({f"{self._prefix}{key}": msgspec.json.encode(progress)})
        self._progress[key] = progress
        _log.info("%s `%s`: %s the new authority", kind, name, progress)

    async def _keep(self, puts: Mapping[str, bytes], deletes: Collection[str] = ()) -> None:
        """Store how far somebody has come. A robot tells it again when it connects."""
        await self._writer.keep(puts, deletes)

    async def _commit(
        self,
        record: HandOverRecord,
        audited: Mapping[str, Any],
        puts: Mapping[str, bytes] | None = None,
    ) -> None:
        details = {"previous": record.previous, "next": record.next, "ends": record.ends}
        stored = {HAND_OVER: msgspec.json.encode(record), **(puts or {})}
        await self._writer.commit({**audited, **details}, puts=stored)

    async def _noted(self, state: str) -> None:
        """Note in the folder how far the hand-over is, for a store that is restored later."""
        assert self.record is not None
        try:
            await asyncio.to_thread(mark, self._folder, self.record.next, state)
        except OSError as error:
            _log.warning("the hand-over cannot be noted in %s: %s", self._folder, error.strerror)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
