"""A coordinator that waits to lead copies the files of releases from the one that leads."""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec
from websockets.asyncio.connection import Connection
from websockets.exceptions import WebSocketException

from dorad.control.asyncclient import connected
from dorad.control.errors import ControlError
from dorad.control.target import Tcp, TlsFiles
from dorad.control.tls import Identity
from dorad.problems import ProblemError
from dorad.release.connection import receive_over
from dorad.release.errors import ReleaseError
from dorad.release.receive import SenderLostError
from dorafleet.ca.authority import Authority, write_secret
from dorafleet.coordinator.authority import check_authority
from dorafleet.coordinator.copies import ANSWER_S, MAX_RELEASES, RATE, WAIT_S, hear, send_over
from dorafleet.coordinator.keptreleases import Folder, stays
from dorafleet.coordinator.listener import Listen, reachable_at
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.supply import Supply
from dorafleet.coordinator.uploadmessages import COPIES_PATH, CopyOrder, CopyState
from dorafleet.coordinator.writer import Writer
from dorafleet.store.model import Store

LEADS_AT = "leads-at"
"""The record of where the coordinator that leads listens, if it uses TLS."""

CERTIFICATE, AUTHORITY = "follower.pem", "follower-authority.pem"
"""Files of a coordinator that waits: its own key and certificate, and the fleet's authority."""
RENEW_S = 86400.0
"""Seconds after which it makes itself another certificate."""
FIRST_S, LONGEST_S = 2.0, 120.0
"""Seconds until the leader is asked again after a failure; they double."""
COLLECT_S = 3600.0
"""Seconds between two removals of files that nothing needs."""

_log = logging.getLogger(__name__)


class LeadsAt(msgspec.Struct, frozen=True):
    """The value of `leads-at`."""

    addresses: list[str]
    port: int


async def publish(writer: Writer, listen: Listen, port: int) -> None:
    """Store where this coordinator listens, for those that wait. Raises ProblemError."""
    addresses = [listen.address]
    if listen.address.is_unspecified:
        every = (listen.advertised, *reachable_at(listen.address, listen.advertised))
        addresses = [each for each in dict.fromkeys(every) if not each.is_loopback]
    at = LeadsAt([str(each) for each in addresses], port)
    await writer.keep({LEADS_AT: msgspec.json.encode(at)})


class _Known(NamedTuple):
    """With what this coordinator shows who it is."""

    fingerprint: str
    until: float
    """On the monotonic clock."""
    files: TlsFiles


class Follower:
    """Copies files of releases until this coordinator leads."""

    def __init__(
        self, name: str, folder: Path, store: Store, uploads: Folder, supply: Supply
    ) -> None:
        """`name` is that of this coordinator, for people; `folder` has its files."""
        self._name = name
        self._folder = folder
        self._store = store
        self._uploads = uploads
        self._supply = supply
        self._known: _Known | None = None
        self._failed, self._trouble = "", ""
        """The release whose last copy has failed, and why."""
        self._kept: tuple[list[str], float] = [], 0.0
        """What the leader keeps, and when files were removed last, on the monotonic clock."""

    async def run(self) -> NoReturn:
        """Copy until cancelled; then nothing more is written."""
        failures = 0
        while True:
            try:
                await self._visit()
                failures = 0
            except (ProblemError, SenderLostError, OSError, WebSocketException) as error:
                _log.log(
                    logging.DEBUG if failures else logging.WARNING,
                    "the files of releases are not copied now: %s",
                    error,
                )
                failures += 1
            # The leader answers at once only if there is something to copy.
            delay = min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 10)) if failures else 0.1
            await asyncio.sleep(delay)

    async def _visit(self) -> None:
        """Say what is here, and copy one release at most. Raises ProblemError and others."""
        at = await self._leader()
        files = await self._identify()
        kept = await asyncio.to_thread(self._uploads.kept)
        complete = [each.release for each in kept if each.complete][:MAX_RELEASES]
        state = CopyState(self._name, complete, self._failed, self._trouble)
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack, at, files)
            await connection.send(msgspec.json.encode(state).decode())
            order = await hear(connection, CopyOrder, WAIT_S + ANSWER_S)
            try:
                if order.take:
                    await send_over(connection, self._supply, order.take, "the leader")
                elif order.send:
                    _log.info("copying the files of release %.12s", order.send)
                    destination = self._uploads.destination(
                        order.send, patches=order.send != self._failed
                    )
                    await receive_over(connection, destination, rate=RATE)
            except (ProblemError, SenderLostError, OSError, WebSocketException) as error:
                self._failed, self._trouble = order.send or order.take, str(error)
                raise
        if self._failed == order.send:
            self._failed, self._trouble = "", ""
        await self._collect(order.keep)

    async def _leader(self) -> LeadsAt:
        for entry, at in await read(self._store, LEADS_AT, LeadsAt):
            if entry.key == LEADS_AT:
                return at
        raise ControlError("unavailable", "no coordinator with TLS has led yet")

    async def _identify(self) -> TlsFiles:
        """Return the files with which the leader knows this coordinator. Raises ProblemError."""
        known = await check_authority(self._store, self._folder / "ca")
        if known is None:
            raise ControlError("unavailable", "the fleet has no authority yet")
        now = time.monotonic()
        authority = known.current
        if (
            self._known is None
            or self._known.fingerprint != authority.fingerprint
            or now > self._known.until
        ):
            files = await asyncio.to_thread(self._issue, authority)
            self._known = _Known(authority.fingerprint, now + RENEW_S, files)
        return self._known.files

    def _issue(self, authority: Authority) -> TlsFiles:
        pair = authority.issue_pair(Identity("coordinator", self._name.partition(":")[0]))
        own, fleet = self._folder / CERTIFICATE, self._folder / AUTHORITY
        write_secret(own, pair.key + pair.issued.chain)
        write_secret(fleet, authority.certificate)
        return TlsFiles(fleet, own)

    async def _connect(self, stack: AsyncExitStack, at: LeadsAt, files: TlsFiles) -> Connection:
        """Connect to the leader, at the first of its addresses that answers.

        Raises:
            ControlError: none does, or it refuses this coordinator.
        """
        failure = ControlError("unavailable", "the leader has no address")
        for address in at.addresses:
            target = Tcp(address, at.port, tls=files)
            try:
                return await stack.enter_async_context(connected(target, COPIES_PATH, {}))
            except ControlError as error:
                _log.debug("no leader at %s: %s", target, error)
                failure = error
        raise failure

    async def _collect(self, keep: list[str]) -> None:
        """Remove what neither the leader keeps nor came lately. Raises OSError."""
        before, at = self._kept
        if keep == before and time.monotonic() < at + COLLECT_S:
            return
        now = time.time()
        kept = await asyncio.to_thread(self._uploads.kept)
        needed = dict.fromkeys(keep, "")
        staying = {each.release for each in kept if stays(each.release, each.at, needed, now)}
        try:
            await asyncio.to_thread(self._uploads.collect, staying)
        except ReleaseError as error:
            _log.debug("nothing is removed now: %s", error)
        self._kept = keep, time.monotonic()
