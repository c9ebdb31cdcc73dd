"""Upload the incidents of this robot to its coordinator: the most urgent first, within a budget.

The coordinator hears of all of them, also of those that are left out, with the reason. It says
which one it takes. What was cut off continues where it was, after a restart, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec
from websockets.exceptions import ConnectionClosed

from dorad.agent.backoff import Backoff, bounded
from dorad.agent.budget import Budget, BudgetSpentError
from dorad.agent.incidentfiles import Hashed, open_file, read_incident
from dorad.control import messages as m
from dorad.control.agentsettings import UploadSettings, load_incidents
from dorad.control.errors import ControlError
from dorad.control.incidentfiles import (
    MAX_LISTED,
    IncidentInfo,
    IncidentKey,
    IncidentsOrder,
    IncidentsState,
    urgency,
)
from dorad.jitter import between
from dorad.phrases import size_text
from dorad.record.box.ring import SEGMENT_S
from dorad.release.errors import ReleaseError
from dorad.release.send import CutError, send_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from websockets.asyncio.client import ClientConnection

    from dorad.agent.daemon import Daemon

    Connect = Callable[[], AbstractAsyncContextManager[ClientConnection]]
    """Opens a connection for incidents to the coordinator. Raises ControlError."""

CHECK_S = 5.0
"""Seconds between two looks for new incidents."""
SETTLED_S = 3 * SEGMENT_S
"""Seconds after the end of an incident's time until all its segments are there."""
ANSWER_S = 30.0
"""Seconds in which the coordinator answers a list."""
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 300.0
REFUSED_S = 3600.0
"""Seconds until an incident that was refused, or cannot be read, is tried again."""
REFILL_S = 600.0
"""Seconds until it is tried again after the budget was spent."""
MAX_REASON = 300
"""Characters of a reason."""

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What the black boxes of this robot have."""

    infos: dict[IncidentKey, IncidentInfo]
    boxes: dict[IncidentKey, Path]
    left_out: int


class IncidentUpload:
    """Uploads incidents while a coordinator has attached. Belongs to one event loop."""

    def __init__(self, folder: Path, settings: Path, daemon: Daemon, connect: Connect) -> None:
        """`folder` gets the file of the budget; `settings` is the robot's dorad.toml."""
        self._settings = settings
        self._daemon = daemon
        self._connect = connect
        self._budget = Budget(folder / "incidents.json")
        self._backoff = _backoff()
        self._again: float | None = None
        """When the coordinator is asked again, on the monotonic clock, although nothing is new."""
        self._told: dict[IncidentKey, IncidentInfo] | None = None
        """What the coordinator has heard; None if this one has heard nothing."""
        self._allowed: int | None = None
        """The budget that the coordinator allows; None if it sets none."""
        self._failed: dict[IncidentKey, tuple[float, str]] = {}
        """Incidents that are left out: until when on the monotonic clock, and why."""
        self._hashed: tuple[IncidentKey, Hashed] | None = None
        self._paused_until = 0.0
        """Until then the budget is spent, on the monotonic clock."""
        self.problem = ""
        """Why nothing is uploaded, for operators."""

    def attached(self, pause: float) -> None:
        """Send the list to a coordinator that has attached, some time within `pause` seconds."""
        self._told, self._again = None, time.monotonic() + between(0.0, bounded(pause))
        self._backoff = _backoff()

    async def run(self) -> NoReturn:
        """Upload until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(CHECK_S)

    async def _look(self) -> None:
        """Send what is new, or due."""
        try:
            settings = await asyncio.to_thread(load_incidents, self._settings)
        except ControlError as error:
            self._report(f"no incident is uploaded: {error.message}")
            return
        if settings is None or (self._told is None and self._again is None):
            self.problem = ""
            return
        try:
            incidents = await self._find()
            while self._is_due(incidents) and await self._exchange(settings, incidents):
                incidents = await self._find()
        except (ControlError, CutError, ConnectionClosed, OSError) as error:
            delay = self._backoff.next()
            self._told, self._again = None, time.monotonic() + delay
            _log.info("incidents are uploaded again in %.0f s: %s", delay, error)
            if not isinstance(error, CutError | ConnectionClosed):
                self._report(f"incidents are not uploaded: {error}")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem

    def _is_due(self, incidents: _Found) -> bool:
        now = time.monotonic()
        if self._again is not None:
            return now >= self._again
        return incidents.infos != self._told

    async def _find(self) -> _Found:
        """Return what is complete, with the reasons of what cannot be sent. Raises ControlError."""
        client = await self._daemon.client()
        boxes = (await client.call(m.INCIDENT_LIST, m.Ref())).boxes
        now = time.monotonic()
        self._failed = {key: each for key, each in self._failed.items() if each[0] > now}
        infos: dict[IncidentKey, IncidentInfo] = {}
        places: dict[IncidentKey, Path] = {}
        left_out = 0
        for box in boxes:
            left_out += box.left_out
            for each in box.incidents:
                info = _info(box.name or box.dataflow, each)
                if info is None:
                    left_out += 1
                elif each.time + each.after + SETTLED_S <= time.time():
                    why = self._failed.get(info.key, (0.0, ""))[1]
                    infos[info.key] = msgspec.structs.replace(info, problem=why)
                    places[info.key] = Path(box.folder)
        chosen = sorted(infos.values(), key=urgency)[:MAX_LISTED]
        left_out += len(infos) - len(chosen)
        return _Found({each.key: each for each in chosen}, places, left_out)

    async def _exchange(self, settings: UploadSettings, incidents: _Found) -> bool:
        """Send the list, then the incident that the coordinator takes; return whether it took one.

        Raises:
            ControlError: it does not answer, or refuses this robot.
            CutError: the connection was lost.
            OSError: the budget cannot be stored.
        """
        pause = ""
        if time.monotonic() < self._paused_until:
            pause = f"its budget of {size_text(self._per_day(settings))} for 24 hours is spent"
        state = IncidentsState(
            incidents=list(incidents.infos.values()),
            left_out=incidents.left_out,
            per_day=self._per_day(settings),
            spent=self._budget.spent,
            pause=pause,
        )
        async with self._connect() as connection:
            await connection.send(msgspec.json.encode(state).decode())
            order = await _order(connection)
            _log.debug(
                "of %d incidents, the coordinator takes %s", len(incidents.infos), order.take
            )
            self.problem = ""
            self._told = incidents.infos
            self._again = None if order.again is None else time.monotonic() + order.again
            self._allowed = order.per_day
            if pause:
                self._again = self._paused_until
            key = None if order.take is None else IncidentKey(*order.take)
            if key is None or pause:
                return False
            if key not in incidents.infos:
                raise ControlError("bad-request", f"it asks for {key.id}, which is not in the list")
            await self._send(connection, settings, incidents, key)
        return True

    def _per_day(self, settings: UploadSettings) -> int:
        return min(settings.per_day, settings.per_day if self._allowed is None else self._allowed)

    async def _send(
        self,
        connection: ClientConnection,
        settings: UploadSettings,
        incidents: _Found,
        key: IncidentKey,
    ) -> None:
        """Send one incident. What is wrong with it, or with the budget, is in the next list."""
        before = self._hashed[1] if self._hashed is not None and self._hashed[0] == key else None
        box, info = incidents.boxes[key], incidents.infos[key]
        self._again = time.monotonic()
        _log.info("incident %s of %s is uploaded", key.id, key.dataflow)
        try:
            hashed = await asyncio.to_thread(read_incident, box, info, before)
            self._hashed = (key, hashed)
            files = {
                sha256: (size, partial(open_file, box, key.id, name))
                for sha256, (size, name) in hashed.files.items()
            }
            spend = partial(self._budget.spend, per_day=self._per_day(settings))
            await send_over(connection, hashed.manifest, files, rate=settings.rate, spend=spend)
        except BudgetSpentError:
            _log.info("incident %s waits: the budget of 24 hours is spent", key.id)
            self._paused_until = time.monotonic() + REFILL_S
        except (ReleaseError, OSError, msgspec.ValidationError) as error:
            why = str(error)[:MAX_REASON]
            _log.warning("incident %s of %s is left out: %s", key.id, key.dataflow, why)
            self._failed[key] = (time.monotonic() + REFUSED_S, why)
            self._hashed = None
        else:
            self._backoff = _backoff()
            _log.info("incident %s of %s is at the coordinator", key.id, key.dataflow)
        finally:
            await asyncio.to_thread(self._budget.settle)


async def _order(connection: ClientConnection) -> IncidentsOrder:
    try:
        async with asyncio.timeout(ANSWER_S):
            return msgspec.json.decode(await connection.recv(), type=IncidentsOrder)
    except TimeoutError:
        raise ControlError("deadline", f"it said nothing for {ANSWER_S:g} s") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ControlError("bad-request", f"it sends something else: {error}") from None


def _info(dataflow: str, each: m.Incident) -> IncidentInfo | None:
    """Return what the coordinator hears of an incident; None if a node has written nonsense."""
    info = IncidentInfo(
        dataflow=dataflow,
        id=each.id,
        time=each.time,
        before=each.before,
        after=each.after,
        source=each.source,
        note=each.note,
        bytes=each.bytes,
    )
    try:
        return msgspec.convert(msgspec.to_builtins(info), IncidentInfo)
    except msgspec.ValidationError as error:
        _log.debug("an incident of %s is left out: %s", dataflow, error)
        return None


def _backoff() -> Backoff:
    return Backoff(first=FIRST_RETRY_S, longest=LONGEST_RETRY_S)
