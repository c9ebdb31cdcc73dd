"""The answers of the coordinator, one method for each of the protocol."""

import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.session import Call, handles
from dorad.phrases import shorten
from dorafleet.coordinator.audit import AuditError, Head, Row, read_rows, read_tail, verify
from dorafleet.coordinator.desired import DesiredState
from dorafleet.coordinator.messages import (
    AUDIT_READ,
    AUDIT_VERIFY,
    COORDINATOR_BACKUP,
    COORDINATOR_SHUTDOWN,
    COORDINATOR_STATUS,
    DESIRED_GET,
    DESIRED_SET,
    AuditHead,
    AuditPage,
    AuditRead,
    AuditRecord,
    AuditVerify,
    BackedUp,
    Backup,
    CoordinatorStatus,
    Desired,
    DesiredList,
    DesiredRef,
    DesiredSet,
)
from dorafleet.coordinator.robot import unknown_robot
from dorafleet.coordinator.writer import MAX_CLIENT, actor_of
from dorafleet.store.backup import back_up
from dorafleet.store.model import Store

MAX_RECORDS = 1000
_log = logging.getLogger(__name__)


class Handlers:
    """Answers requests from the store."""

    def __init__(
        self,
        store: Store,
        desired: DesiredState,
        robots: Collection[str],
        status: Callable[[], Awaitable[CoordinatorStatus]],
        end: Callable[[], None],
    ) -> None:
        """`status` returns the state of the process, `end` lets it end."""
        self._store = store
        self._desired = desired
        self._robots = robots
        self._read_status = status
        self._end = end

    @handles(COORDINATOR_STATUS)
    async def _status(self, call: Call, params: Nothing) -> CoordinatorStatus:
        return await self._read_status()

    @handles(COORDINATOR_BACKUP)
    async def _back_up(self, call: Call, params: Backup) -> BackedUp:
        path = Path(params.path)
        if not path.is_absolute() or "\0" in params.path:
            raise ControlError("bad-request", f"`{shorten(params.path)}` is not an absolute path")
        try:
            return BackedUp(entries=await back_up(self._store, path))
        except OSError as error:
            raise ControlError("refused", f"{path} cannot be written: {error.strerror}") from None

    @handles(COORDINATOR_SHUTDOWN)
    async def _shut_down(self, call: Call, params: Nothing) -> Nothing:
        _log.info("`%s` ends the coordinator", call.client[:MAX_CLIENT])
        self._end()
        return Nothing()

    @handles(DESIRED_GET)
    async def _get_desired(self, call: Call, params: DesiredRef) -> DesiredList:
        self._check_robot(params.robot)
        return await self._desired.get(params)

    @handles(DESIRED_SET)
    async def _set_desired(self, call: Call, params: DesiredSet) -> Desired:
        self._check_robot(params.robot)
        return await self._desired.set(params, actor_of(call))

    @handles(AUDIT_READ)
    async def _read_audit(self, call: Call, params: AuditRead) -> AuditPage:
        if not 0 < params.limit <= MAX_RECORDS:
            raise ControlError("bad-request", f"`limit` must be from 1 to {MAX_RECORDS}")
        if params.after < 0:
            raise ControlError("bad-request", "`after` must be 0 or more")
        records: list[AuditRecord] = []
        async for row in read_rows(self._store, params.after):
            records.append(_as_record(row))
            if len(records) == params.limit:
                break
        return AuditPage(records=records, head=str((await read_tail(self._store)).head))

    @handles(AUDIT_VERIFY)
    async def _verify_audit(self, call: Call, params: AuditVerify) -> AuditHead:
        try:
            known = None if params.known is None else Head.parse(params.known)
        except ValueError as error:
            raise ControlError("bad-request", str(error)) from None
        return AuditHead(head=str(await verify(self._store, known)))

    def _check_robot(self, id_: str | None) -> None:
        if id_ is not None and id_ not in self._robots:
            raise unknown_robot(id_, self._robots)


def _as_record(row: Row) -> AuditRecord:
    try:
        record = msgspec.json.decode(row.record, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise AuditError(f"record {row.sequence} of the audit was changed") from None
    return AuditRecord(sequence=row.sequence, hash=row.hash, record=record)
