"""Incidents that robots upload, and clients that list, fetch and remove them.

A robot connects, says what it has, and hears which incident to send. Each connection brings one.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from dorad.control.errors import ControlError
from dorad.control.incidentfiles import (
    IncidentInfo,
    IncidentKey,
    IncidentsOrder,
    IncidentsState,
    urgency,
)
from dorad.control.messages import Nothing
from dorad.control.peer import Peer
from dorad.control.session import Call, handles
from dorad.natural import natural
from dorad.problems import ProblemError
from dorad.release.connection import receive_over
from dorad.release.disk import read_bounded
from dorad.release.manifest import MAX_MANIFEST
from dorad.release.receive import SenderLostError
from dorad.release.send import CutError, send_over
from dorafleet.coordinator.copies import hear
from dorafleet.coordinator.incidentmessages import (
    INCIDENT_FILES_PATH,
    INCIDENT_TICKET,
    INCIDENTS_FETCH,
    INCIDENTS_REMOVE,
    INCIDENTS_UPLOADED,
    IncidentPlace,
    IncidentRobot,
    IncidentTicket,
    UploadedIncident,
    UploadedIncidents,
    UploadedRef,
)
from dorafleet.coordinator.keptincidents import IncidentArrival, Kept, KeptIncidents, RobotIncidents
from dorafleet.coordinator.nodeaudit import write_record
from dorafleet.coordinator.writer import Writer

AT_ONCE = 8
"""Uploads at the same time."""
STATE_S = 30.0
"""Seconds in which a robot says what it has."""
LAST_S = 5.0
"""Seconds until an earlier connection of the same robot is given up."""
BUSY_S = 20.0
"""Seconds until a robot asks again while others upload."""
DAY_S = 24 * 3600.0
MAX_TOLD = 1000
"""Robots whose lists are kept."""
MAX_REFUSED = 1000
"""Refused incidents of one robot that are known."""
REFUSED_S = 1800.0
"""Seconds until an incident that was refused may be taken."""
TICKET_S = 30.0
MAX_TICKETS = 64
FETCH_RATE = 32 << 20
"""Bytes a second to one client."""
COLLECT_S = 600.0
"""Seconds between two looks for what is too old."""
MAX_REASON = 100
"""Bytes of the reason with which a connection is closed."""

_log = logging.getLogger(__name__)


class _Told(NamedTuple):
    """What a robot said last."""

    at: float
    state: IncidentsState


class _Ticket(NamedTuple):
    """A connection that is allowed."""

    by: str
    robot: str
    key: IncidentKey
    expires: float
    """On the monotonic clock."""


class _Received:
    """Bytes that a robot has sent in the last 24 hours, by hour."""

    def __init__(self) -> None:
        self._hours: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        now = time.monotonic()
        if not self._hours or now - self._hours[-1][0] >= DAY_S / 24:
            self._hours.append((now, 0))
        begun, before = self._hours[-1]
        self._hours[-1] = (begun, before + count)

    @property
    def total(self) -> int:
        oldest = time.monotonic() - DAY_S
        while self._hours and self._hours[0][0] < oldest:
            self._hours.popleft()
        return sum(count for _, count in self._hours)


class IncidentUploads:
    """Receives incidents of robots, and answers the methods `incidents.…`."""

    def __init__(self, kept: KeptIncidents, writer: Writer) -> None:
        self._kept = kept
        self._writer = writer
        self._told: dict[str, _Told] = {}
        self._refused: dict[str, dict[IncidentKey, tuple[float, str]]] = {}
        """By robot: until when on the monotonic clock an incident is not taken, and why."""
        self._running: dict[str, asyncio.Task[None]] = {}
        """The upload of each robot."""
        self._received: dict[str, _Received] = {}
        self._tickets: dict[str, _Ticket] = {}

    async def run(self) -> NoReturn:
        """Remove what is too old now and then, until cancelled."""
        try:
            await asyncio.to_thread(self._kept.load)
            while True:
                try:
                    await asyncio.to_thread(self._kept.collect)
                except OSError as error:
                    _log.warning("old incidents cannot be removed: %s", error)
                await asyncio.sleep(COLLECT_S)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Hear what a robot has, and receive one incident; end its earlier connection."""
        before = self._running.get(peer.name)
        if before is not None:
            _log.debug("robot `%s` connects again for incidents", peer.name)
            # Usually its connection has ended, and what came over it is still written.
            await asyncio.wait({before}, timeout=LAST_S)
            before.cancel()
            await asyncio.wait({before})
        task = asyncio.create_task(
            self._answer(connection, peer.name), name=f"incidents of {peer.name}"
        )
        self._running[peer.name] = task
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
            if self._running.get(peer.name) is task:
                del self._running[peer.name]

    async def _answer(self, connection: ServerConnection, robot: str) -> None:
        reason = ""
        try:
            state = await hear(connection, IncidentsState, STATE_S)
            self._remember(robot, state)
            here = await asyncio.to_thread(self._kept.of, robot)
            await asyncio.to_thread(here.forget_removed, [each.key for each in state.incidents])
            order = self._order(robot, state, here)
            _log.debug("robot `%s` has %d incidents: %s", robot, len(state.incidents), order)
            await connection.send(msgspec.json.encode(order).decode())
            if order.take is not None:
                await self._receive(connection, robot, here, IncidentKey(*order.take))
        except (ProblemError, SenderLostError, OSError, ConnectionClosed) as error:
            _log.info("incidents of robot `%s`, what has arrived is kept: %s", robot, error)
            reason = str(error).encode()[:MAX_REASON].decode(errors="ignore")
        await connection.close(1011 if reason else 1000, reason)

    def _remember(self, robot: str, state: IncidentsState) -> None:
        self._told.pop(robot, None)
        self._told[robot] = _Told(time.time(), state)
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]

    def _order(self, robot: str, state: IncidentsState, here: RobotIncidents) -> IncidentsOrder:
        """Return which incident a robot is to send."""
        now = time.monotonic()
        self._refused[robot] = {
            key: each for key, each in self._refused.get(robot, {}).items() if each[0] > now
        }
        settings = self._kept.settings
        present = {each.info.key for each in here.kept}
        wanted = choose(state, present, {*here.removed, *self._refused[robot]})
        order = IncidentsOrder(per_day=settings.per_day)
        if self._refused[robot]:
            order.again = REFUSED_S
        if wanted is None:
            return order
        received = self._received.setdefault(robot, _Received())
        if settings.per_day is not None and received.total >= settings.per_day:
            order.again = DAY_S / 24
        elif len(self._running) > AT_ONCE:
            order.again = BUSY_S
        else:
            order.take = (wanted.dataflow, wanted.id)
        return order

    async def _receive(
        self, connection: ServerConnection, robot: str, here: RobotIncidents, key: IncidentKey
    ) -> None:
        _log.info("robot `%s` uploads incident %s of %s", robot, key.id, key.dataflow)
        arrived = sum(here.arrived.values())
        arrival = IncidentArrival(here, key)
        received = self._received.setdefault(robot, _Received())
        try:
            await receive_over(
                connection,
                arrival,
                rate=self._kept.settings.rate / AT_ONCE,
                on_received=received.add,
            )
            _log.info("incident %s of robot `%s` is here", key.id, robot)
        except (ProblemError, OSError) as error:
            refused = self._refused.setdefault(robot, {})
            if len(refused) < MAX_REFUSED:
                refused[key] = (time.monotonic() + REFUSED_S, str(error))
            raise
        finally:
            self._kept.release(robot)
            _log.debug("robot `%s`: %d bytes had arrived before", robot, arrived)

    @handles(INCIDENTS_UPLOADED)
    async def uploaded(self, _call: Call, _params: Nothing) -> UploadedIncidents:
        """List all incidents that are here, and those that robots have listed."""
        here = self._kept.all
        names = sorted({*here, *self._told}, key=natural)
        rows = await asyncio.to_thread(self._rows_of_all, names, here)
        return UploadedIncidents(
            incidents=[row for name in names for row in rows[name]],
            robots=[self._robot(name, here.get(name)) for name in names],
            folder=str(self._kept.folder),
            used=self._kept.used,
            limit=self._kept.settings.limit,
            per_robot=self._kept.settings.per_robot,
            keep=self._kept.settings.keep_s,
        )

    def _rows_of_all(
        self, names: list[str], here: Mapping[str, RobotIncidents]
    ) -> dict[str, list[UploadedIncident]]:
        return {
            name: rows(
                name,
                self._told.get(name),
                here.get(name),
                {key: why for key, (_, why) in self._refused.get(name, {}).items()},
            )
            for name in names
        }

    def _robot(self, name: str, here: RobotIncidents | None) -> IncidentRobot:
        told = self._told.get(name)
        robot = IncidentRobot(robot=name, used=0 if here is None else here.used)
        if told is not None:
            robot.heard, robot.left_out = told.at, told.state.left_out
            robot.per_day, robot.spent = told.state.per_day, told.state.spent
        return robot

    def _find(self, ref: UploadedRef) -> tuple[str, RobotIncidents, Kept]:
        """Return the only complete incident that is meant. Raises ControlError."""
        kept = [
            (robot, here, each)
            for robot, here in self._kept.all.items()
            if ref.robot in (None, robot)
            for each in here.kept
            if each.info.id == ref.id and ref.dataflow in (None, each.info.dataflow)
        ]
        if len(kept) == 1:
            return kept[0]
        if not kept:
            hint = "`dorafleet incidents` lists what is here, and why others are not"
            raise ControlError("not-found", f"no incident `{ref.id[:64]}` is here", hint)
        places = ", ".join(f"{robot}/{each.info.dataflow}" for robot, _, each in kept[:5])
        hint = "choose one with `--robot` and `--dataflow`"
        raise ControlError("conflict", f"several have an incident {ref.id}: {places}", hint)

    @handles(INCIDENTS_FETCH)
    async def fetch(self, call: Call, params: UploadedRef) -> IncidentTicket:
        """Allow a connection for the files of an incident."""
        robot, _, each = self._find(params)
        now = time.monotonic()
        self._tickets = {key: one for key, one in self._tickets.items() if one.expires > now}
        if len(self._tickets) >= MAX_TICKETS:
            raise ControlError("busy", f"{MAX_TICKETS} clients fetch incidents now", "try again")
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = _Ticket(call.peer.name, robot, each.info.key, now + TICKET_S)
        return IncidentTicket(path=INCIDENT_FILES_PATH, ticket=ticket, incident=_here(robot, each))

    @handles(INCIDENTS_REMOVE)
    async def remove(self, call: Call, params: UploadedRef) -> UploadedIncident:
        """Remove an incident; the audit has who did so."""
        robot, here, each = self._find(params)
        await write_record(
            self._writer, call, robot=robot, dataflow=each.info.dataflow, incident=each.info.id
        )
        await asyncio.to_thread(here.remove, [each.info.key], f"{call.peer.name} has removed it")
        return _here(robot, each)

    async def serve_files(self, connection: ServerConnection, peer: Peer) -> None:
        """Send the files of an incident over a connection that has a ticket; refuse others."""
        request = connection.request
        given = "" if request is None else request.headers.get(INCIDENT_TICKET, "")
        sent = given.encode()
        known = next((t for t in self._tickets if hmac.compare_digest(t.encode(), sent)), "")
        ticket = self._tickets.pop(known, None)
        if ticket is None or ticket.by != peer.name or ticket.expires < time.monotonic():
            _log.warning("refused a connection of `%s` for an incident: no ticket", peer.name)
            await connection.close(1008, "no ticket allows this connection")
            return
        here = self._kept.of(ticket.robot)
        kept = here.find(ticket.key)
        reason = ""
        try:
            if kept is None:
                raise ControlError("not-found", "the incident was removed meanwhile")
            path = here.folder / "manifests" / kept.manifest
            content = await asyncio.to_thread(read_bounded, path, MAX_MANIFEST)
            files = {
                sha256: (size, partial(_open, here.path(sha256, size)))
                for sha256, size in kept.files.items()
            }
            _log.info("%s fetches incident %s of %s", peer.name, ticket.key.id, ticket.robot)
            await send_over(connection, content, files, rate=FETCH_RATE)
        except (ProblemError, CutError, OSError) as error:
            _log.info("incident %s was not fetched: %s", ticket.key.id, error)
            reason = str(error).encode()[:MAX_REASON].decode(errors="ignore")
        await connection.close(1011 if reason else 1000, reason)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def choose(
    state: IncidentsState, present: set[IncidentKey], not_taken: set[IncidentKey]
) -> IncidentInfo | None:
    """Return the most urgent incident that is to come; None for none. A pure function."""
    if state.pause:
        return None
    wanted = (
        each
        for each in state.incidents
        if each.key not in present and each.key not in not_taken and not each.problem
    )
    return min(wanted, key=urgency, default=None)


def rows(
    robot: str,
    told: _Told | None,
    here: RobotIncidents | None,
    refused: Mapping[IncidentKey, str],
) -> list[UploadedIncident]:
    """Return the incidents of a robot, the most urgent first, with the reasons of missing ones."""
    kept = {} if here is None else {each.info.key: each for each in here.kept}
    removed = {} if here is None else here.removed
    arrived = {} if here is None else here.arrived
    infos = {key: each.info for key, each in kept.items()}
    state = IncidentsState(incidents=[]) if told is None else told.state
    infos |= {each.key: each for each in state.incidents if each.key not in infos}
    rows = []
    for info in sorted(infos.values(), key=urgency):
        key = info.key
        if key in kept:
            rows.append(_here(robot, kept[key]))
            continue
        why = info.problem or refused.get(key, "") or removed.get(key, "")
        place: IncidentPlace = "left-out" if why else "partial" if key in arrived else "waiting"
        if key in removed:
            place = "removed"
        rows.append(_row(robot, info, place, arrived.get(key, 0), why or state.pause))
    return rows


def _here(robot: str, kept: Kept) -> UploadedIncident:
    row = _row(robot, kept.info, "complete", sum(kept.files.values()), "")
    row.at = kept.at
    return row


def _row(
    robot: str, info: IncidentInfo, state: IncidentPlace, arrived: int, why: str
) -> UploadedIncident:
    return UploadedIncident(
        robot=robot,
        dataflow=info.dataflow,
        id=info.id,
        time=info.time,
        before=info.before,
        after=info.after,
        source=info.source,
        note=info.note,
        bytes=info.bytes,
        state=state,
        arrived=arrived,
        why=why,
    )
