"""The hand-over of a fleet from one authority to the next, robot by robot.

First each robot that connects is told to trust both. Once all do, or in the last third of the time,
they get certificates of the new authority: one that had it earlier would have no link to a robot
that does not trust it yet. The coordinator shows a certificate of the old one until the end, which
an operator or the date brings: then only the new one is trusted. Until a robot was offered a
certificate of the new one, the hand-over can be cancelled: then only the old one is trusted.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from dorad.bell import Bell
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_HANDOVER
from dorad.control.tls import GRACE_S
from dorad.phrases import first_of
from dorad.problems import ProblemError
from dorafleet.ca.authority import SHORT, Authority
from dorafleet.ca.handover import CANCELLED, FINISHED, STARTED, has, mark, open_successor
from dorafleet.coordinator.authority import HAND_OVER, KEY, HandOverRecord
from dorafleet.coordinator.handoverstate import MAX_DELETED, HandOverState, Progress, day_of
from dorafleet.coordinator.writer import COORDINATOR, Writer

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

_FINGERPRINT = re.compile("[0-9a-f]{64}")

_log = logging.getLogger(__name__)


def is_lost(error: Exception) -> bool:
    """Return True if a call has failed because its connection has ended."""
    return isinstance(error, ControlError) and error.code == "unavailable"


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
    """Begins and ends hand-overs, and takes the robots along that are connected."""

    def __init__(
        self,
        state: HandOverState,
        writer: Writer,
        folder: Path,
        show: Callable[[Authority, str], Awaitable[None]],
    ) -> None:
        """`folder` has the authorities of the fleet.

        `show` lets the server show a certificate of an authority, and trust those of a text (PEM).
        """
        self.state = state
        self._writer = writer
        self._folder = folder
        self._show = show
        self._connections: dict[str, _Connection] = {}
        self._lost_at: dict[str, float] = {}
        """When the last connection of each robot ended, on the monotonic clock."""
        self._bell = Bell()
        """Rings when a robot has made a step."""
        self._is_shown = True
        """False while the server uses other authorities, because a file could not be written."""

    async def begin(self, wanted: str, actor: Mapping[str, Any]) -> HandOverRecord:
        """Begin the hand-over to the authority of this fingerprint, which is in the folder.

        Raises:
            ControlError: the present one has not signed it, or another hand-over is open.
            StoreError: the store cannot be written.
        """
        if not _FINGERPRINT.fullmatch(wanted):
            raise ControlError("bad-request", "a fingerprint has 64 hexadecimal digits")
        state = self.state
        async with self._writer.changing:
            if state.record is not None and state.record.open:
                if state.record.next == wanted:
                    return state.record
                raise ControlError(
                    "conflict",
                    f"the hand-over to {state.record.next[:SHORT]} is not finished",
                    "`dorafleet authority status` shows how far it is",
                )
            if wanted == state.current.fingerprint:
                raise ControlError("exists", f"{wanted[:SHORT]} is the authority already")
            if has(self._folder / wanted[:SHORT], CANCELLED):
                raise ControlError(
                    "refused",
                    f"the hand-over to {wanted[:SHORT]} was cancelled",
                    "`dorafleet authority hand-over` makes another authority",
                )
            new = await asyncio.to_thread(
                open_successor, self._folder, state.current, wanted, time.time()
            )
            record = HandOverRecord(state.current.fingerprint, wanted, new.begun, new.ends)
            await self._commit(record, {**actor, "action": "authority.hand-over"})
            state.record, state.successor = record, new
            state.forget()
            await self._changed(STARTED)
        _log.warning("the authority hands over to %.16s, until %s", wanted, day_of(record.ends))
        return record

    async def finish(self, actor: Mapping[str, Any], *, force: bool) -> list[str]:
        """Trust only the new authority from now on; return the robots that are left behind.

        Raises:
            ControlError: there is no hand-over, or some would be left behind without `force`.
            StoreError: the store cannot be written.
        """
        state = self.state
        if state.open is None:
            raise ControlError("conflict", "there is no hand-over that could finish")
        if force:
            await self._certify_connected()
        async with self._writer.changing:
            new, record = state.open, state.record
            if new is None or record is None:
                raise ControlError("conflict", "the hand-over has ended meanwhile")
            robots, operators = state.old(), state.operators(new=False)
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
            state.current, state.record, state.forced = new.authority, done, False
            await self._changed(FINISHED)
        _log.warning(
            "the authority is %.16s now; left behind: %s",
            done.next,
            first_of([*robots, *(f"operator {each}" for each in operators)], MAX_NAMED) or "none",
        )
        return robots

    async def cancel(self, actor: Mapping[str, Any]) -> list[str]:
        """Trust only the old authority again; return the operators with certificates of the new.

        Raises:
            ControlError: there is no hand-over, or a robot may have a certificate of the new
                authority: it would be locked out.
            StoreError: the store cannot be written.
        """
        state = self.state
        # A certificate is signed, and noted as offered, under the same lock.
        async with self._writer.changing:
            record = state.record
            if state.open is None or record is None:
                raise ControlError("conflict", "there is no hand-over that could be cancelled")
            if robots := state.new():
                raise ControlError(
                    "refused",
                    "certificates of the new authority were given to robots already: "
                    + first_of(robots, MAX_NAMED),
                    "`dorafleet authority finish` ends the hand-over; another one may follow it",
                )
            operators = state.operators(new=True)
            done = msgspec.structs.replace(record, cancelled=time.time())
            await self._commit(done, {**actor, "action": "authority.cancel"})
            state.record, state.forced = done, False
            await self._changed(CANCELLED)
        _log.warning("the hand-over to %.16s was cancelled", done.next)
        return operators

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

    async def run(self) -> NoReturn:
        """Take along the robots that are connected, and end the hand-over on its date."""
        async with asyncio.TaskGroup() as tasks:
            ending: asyncio.Task[None] | None = None
            while True:
                await asyncio.sleep(CHECK_S)
                if not self._is_shown:
                    await self._show_now()
                record = self.state.record
                if record is None:
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
            await self._show(self.state.current, self.state.trusted)
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
        record = self.state.record
        if record is None or time.monotonic() < connection.retry:
            return False
        if time.time() > record.ends + GRACE_S:
            # One that was away has no certificate of a new authority; it may drop one.
            trusts_more = record.cancelled and self.state.progress_of(robot) is not None
            return bool(trusts_more) and not connection.told
        return not connection.told or self.state.is_due(robot)

    async def _take_along(self, robot: str) -> None:
        """Let a robot make its next step; a failure is kept for `warning`."""
        connection, record = self._connections.get(robot), self.state.record
        if connection is None or record is None:
            return
        try:
            async with asyncio.timeout(STEP_S):
                if connection.told:
                    await connection.renew()
                    progress: Progress | None = "certified"
                else:
                    progress = await self._tell(connection.client, record)
                    connection.told = True
            self.state.refusals.pop(robot, None)
            if record is self.state.record:
                await self._note(robot, progress)
        except (ProblemError, TimeoutError) as error:
            connection.retry = time.monotonic() + RETRY_S
            if self._connections.get(robot) is not connection or is_lost(error):
                _log.debug("robot `%s` connects again: %s", robot, error)
                return  # as it does whenever its identity changes
            unknown = isinstance(error, ControlError) and error.code in UNKNOWN
            if unknown and record.cancelled:
                return  # it never trusted the new authority
            why = "its dorad knows no hand-over: upgrade it" if unknown else str(error)
            self.state.refusals[robot] = (why or "it does not answer")[:MAX_REFUSAL]
            _log.warning("robot `%s` does not follow the hand-over: %s", robot, why)
        self._bell.ring()

    async def _note(self, robot: str, progress: Progress | None) -> None:
        if progress is None:
            await self.state.left("robot", robot)
        else:
            await self.state.came("robot", robot, progress)

    async def _tell(self, client: AsyncClient, record: HandOverRecord) -> Progress | None:
        """Tell a robot which authorities to trust; return how far it is. Raises ControlError."""
        assert self.state.successor is not None
        order = msgspec.structs.replace(
            self.state.successor.order,
            finished=bool(record.finished),
            cancelled=bool(record.cancelled),
        )
        trust = await client.call(AGENT_HANDOVER, order)
        if record.cancelled:
            if record.next in trust.trusted:
                raise ControlError("refused", "its dorad cannot cancel a hand-over: upgrade it")
            return None
        if trust.trusted[-1:] != [record.next]:
            raise ControlError("refused", "it trusts another authority than it was told of")
        return "certified" if trust.certified else "trusts"

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
            if self.state.progress_of(robot) in ("trusts", "offered")
        ]
        return [robot for robot in soon if robot not in self.state.refusals]

    async def _certify_connected(self) -> None:
        """Wait until robots that are connected have new certificates, as far as they take them."""
        self.state.forced = True
        await self._bell.until(lambda: not self._certifying, FORCED_S)

    async def _commit(
        self,
        record: HandOverRecord,
        audited: Mapping[str, Any],
        puts: Mapping[str, bytes] | None = None,
    ) -> None:
        details = {"previous": record.previous, "next": record.next, "ends": record.ends}
        stored = {HAND_OVER: msgspec.json.encode(record), **(puts or {})}
        await self._writer.commit({**audited, **details}, puts=stored)

    async def _changed(self, state: str) -> None:
        """Tell robots, the folder and the server that the hand-over has come so far.

        A store that is restored later learns it from the folder.
        """
        assert self.state.record is not None
        for connection in self._connections.values():
            connection.told = False
        try:
            await asyncio.to_thread(mark, self._folder, self.state.record.next, state)
        except OSError as error:
            _log.warning("the hand-over cannot be noted in %s: %s", self._folder, error.strerror)
        await self._show_now()
