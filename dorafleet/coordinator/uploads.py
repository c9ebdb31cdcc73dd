"""The files of releases that operators upload, for robots that get them when no operator is there.

A client gets a ticket by a method, and uploads over a connection of its own: what is lacking, which
is checked against the signed manifest. One upload runs at a time. What nothing needs is removed.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.control.session import Call, handles
from dorad.release.connection import receive_over
from dorad.release.errors import ReleaseError
from dorad.release.manifest import Object
from dorad.release.receive import SenderLostError
from dorafleet.coordinator.keptreleases import KeptReleases
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.uploadmessages import (
    RELEASE_LACKING,
    RELEASE_UPLOAD,
    UPLOAD_PATH,
    UPLOAD_TICKET,
    ReleaseLacking,
    UploadTicket,
)
from dorafleet.coordinator.writer import actor_of
from dorafleet.rollout.messages import ReleaseRef

RATE = 32 << 20
"""Bytes a second that are read of an upload."""
TICKET_S = 30.0
"""Seconds in which a client must connect."""
COLLECT_S = 3600.0
"""Seconds between two collections."""
MAX_REASON = 100
"""Bytes of the reason with which a connection is closed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Upload:
    """A ticket, and the upload that it has allowed."""

    release: str
    label: str
    by: str
    actor: Mapping[str, Any]
    ticket: str
    expires: float
    """On the monotonic clock."""
    task: asyncio.Task[object] | None = None
    """While it runs."""
    received: bool = False
    """Whether all files are here, and that is being stored."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def holds(self) -> bool:
        """Whether it runs, or may still begin."""
        return not self.ended.is_set() and (
            self.task is not None or time.monotonic() < self.expires
        )


class Uploads:
    """Receives releases, one at a time."""

    def __init__(
        self,
        kept: KeptReleases,
        releases: Releases,
        trouble: Callable[[str], str],
        on_stored: Callable[[str], object],
    ) -> None:
        """`trouble` returns why a release cannot be sent to robots, empty if it can; it blocks.

        `on_stored` is called with a release that has arrived.
        """
        self._kept = kept
        self._releases = releases
        self._trouble = trouble
        self._on_stored = on_stored
        self._upload: _Upload | None = None
        self._allowing = asyncio.Lock()

    @handles(RELEASE_LACKING)
    async def lacking(self, _call: Call, params: ReleaseRef) -> ReleaseLacking:
        """Return what is lacking of a release."""
        info = self._releases.find(params.release)
        manifest = await self._releases.manifest(info.id)
        lost: list[Object] = []
        async with self._kept.looking:
            why = await asyncio.to_thread(self._trouble, info.id)
            if why and manifest is not None and self._kept.folder is not None:
                lost = await asyncio.to_thread(self._kept.folder.lacking, manifest)
        return ReleaseLacking(
            release=info.id,
            label=self._releases.label(info.id),
            sends=not why,
            objects=len(lost),
            size=sum(each.size for each in lost),
            why=why,
        )

    @handles(RELEASE_UPLOAD)
    async def upload(self, call: Call, params: ReleaseRef) -> UploadTicket:
        """Allow a connection. An earlier one of the same user ends."""
        if self._kept.folder is None:
            raise ControlError("unsupported", "this coordinator keeps no files of releases")
        info = self._releases.find(params.release)
        async with self._allowing:
            before = self._upload
            if before is not None and before.received:
                await before.ended.wait()
            elif before is not None and before.holds:
                if before.by != call.peer.name:
                    raise ControlError(
                        "refused",
                        f"{before.by} uploads {before.label} now; one upload runs at a time",
                        "try again when it has ended",
                    )
                if before.task is not None:
                    _log.debug("a newer upload of %s ends the one before", before.by)
                    before.task.cancel()
                    await before.ended.wait()
            await self._kept.collect()
            self._upload = _Upload(
                info.id,
                self._releases.label(info.id),
                call.peer.name,
                actor_of(call),
                secrets.token_hex(16),
                time.monotonic() + TICKET_S,
            )
        _log.debug("%s may upload %s", call.peer.name, self._upload.label)
        return UploadTicket(path=UPLOAD_PATH, ticket=self._upload.ticket)

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Receive a release over a connection that has a ticket; refuse others."""
        upload = self._upload
        request = connection.request
        given = "" if request is None else request.headers.get(UPLOAD_TICKET, "")
        if (
            upload is None
            or upload.task is not None
            or not upload.holds
            or upload.by != peer.name
            or not hmac.compare_digest(given.encode(), upload.ticket.encode())
        ):
            _log.warning("refused a connection of `%s` for files: it has no ticket", peer.name)
            await connection.close(1008, "no ticket allows this connection")
            return
        upload.task = asyncio.create_task(
            self._receive(connection, upload), name=f"upload of {upload.label}"
        )
        upload.task.add_done_callback(lambda _: upload.ended.set())
        try:
            # The caller ends when the connection does; the receiver notices that itself.
            await asyncio.wait({upload.task})
        finally:
            upload.task.cancel()

    async def _receive(self, connection: ServerConnection, upload: _Upload) -> None:
        assert self._kept.folder is not None
        _log.info("%s uploads %s", upload.by, upload.label)
        reason = ""
        try:
            destination = self._kept.folder.destination(upload.release)
            await receive_over(connection, destination, rate=RATE)
            upload.received = True
            audited = {
                **upload.actor,
                "action": "release.upload",
                "release": upload.release,
                "name": upload.label,
            }
            await self._kept.add(upload.release, upload.by, audited)
            _log.info("%s is here, from %s", upload.label, upload.by)
        except (ReleaseError, SenderLostError, OSError, ConnectionClosed) as error:
            _log.warning(
                "the upload of %s by %s, what has arrived is kept: %s",
                *(upload.label, upload.by, error),
            )
            reason = str(error).encode()[:MAX_REASON].decode(errors="ignore")
        self._on_stored(upload.release)
        await connection.close(1011 if reason else 1000, reason)

    async def run(self) -> NoReturn:
        """Collect now and then, until cancelled."""
        try:
            while True:
                await self._kept.collect()
                await asyncio.sleep(COLLECT_S)
        finally:
            if self._upload is not None and self._upload.task is not None:
                self._upload.task.cancel()
                await asyncio.wait({self._upload.task})
