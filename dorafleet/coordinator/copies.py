"""Copies of the files of releases on the coordinators that wait to lead.

Each of them connects, says what it has, and hears what to keep. Then the files of one release go
over the connection: to it, or to this coordinator if it lacks what something needs.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import msgspec
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from dorad.bell import Bell
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.peer import Peer
from dorad.control.session import Call, handles
from dorad.phrases import first_of
from dorad.problems import ProblemError
from dorad.release.connection import receive_over
from dorad.release.receive import SenderLostError
from dorafleet.coordinator.keptreleases import KeptReleases, stays
from dorafleet.coordinator.supply import Supply
from dorafleet.coordinator.uploadmessages import (
    RELEASE_STORED,
    CopyOrder,
    CopyState,
    OtherCoordinator,
    StoredReleases,
)
from dorafleet.inventory.model import Machine

WAIT_S = 20.0
"""Seconds after which one that lacks nothing hears so, and connects again."""
ANSWER_S = 30.0
"""Seconds in which the other end says what it has, or wants, beyond `WAIT_S`."""
RATE = 32 << 20
"""Bytes a second that are read of a copy."""
MAX_OTHERS = 16
MAX_RELEASES = 4096
"""Ids in one message."""
MAX_TEXT = 500
"""Characters of a name or a reason."""
RETRY_S = 60.0
"""Seconds until a release whose files did not arrive here is taken again."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Copies:
    """Gives other coordinators the files that they lack, takes those that this one lacks."""

    def __init__(
        self, kept: KeptReleases, supply: Supply | None, on_stored: Callable[[str], object]
    ) -> None:
        """`supply` is None if nothing is sent from this machine.

        `on_stored` is called with a release that has arrived here.
        """
        self._kept = kept
        self._supply = supply
        self._on_stored = on_stored
        self._others: dict[str, OtherCoordinator] = {}
        self._changed = Bell()
        self._not_taken: dict[str, float] = {}
        """Releases that did not arrive: when they may be taken again, on the monotonic clock."""

    @handles(RELEASE_STORED)
    async def stored(self, _call: Call, _params: Nothing) -> StoredReleases:
        """List what was uploaded, and what other coordinators lack."""
        listing = await self._kept.listing()
        return msgspec.structs.replace(listing, others=list(self._others.values()))

    def changed(self) -> None:
        """Look at once: a release has arrived, or something needs another one."""
        self._changed.ring()

    def without(self, release: str) -> list[str]:
        """Return which coordinators lack a release, each with the reason if a copy has failed."""
        return [
            f"{each.name} ({each.trouble})" if each.trouble else each.name
            for each in self._others.values()
            if release in each.lacking
        ]

    @property
    def warnings(self) -> list[str]:
        """What operators have to mend so that robots get their files, also after a failover."""
        label = self._kept.label
        lost = [
            f"the files of {label(id_) or id_[:12]}, which is needed, are not here; they are on "
            f"{host}: start the coordinator there, or `dorafleet release upload`"
            for id_, host in self._kept.lost.items()
        ]
        return lost + [
            f"the coordinator {each.name} has no copy of the files of "
            f"{first_of((label(id_) or id_[:12] for id_ in each.lacking), 3)}: {each.trouble}; "
            "robots would wait for them if it led"
            for each in self._others.values()
            if each.trouble and each.lacking
        ]

    async def accept(self, connection: ServerConnection, peer: Peer) -> None:
        """Answer another coordinator, and copy one release at most."""
        folder = self._kept.folder
        if folder is None or self._supply is None:
            await connection.close(1008, "this coordinator keeps no files of releases")
            return
        order = CopyOrder(keep=[])
        try:
            state = await hear(connection, CopyState, ANSWER_S)
            order = await self._order(state)
            await connection.send(msgspec.json.encode(order).decode())
            if order.take:
                _log.info("%s has the files of %.12s, which are taken", peer.name, order.take)
                await receive_over(connection, folder.destination(order.take), rate=RATE)
                self._on_stored(order.take)
            elif order.send:
                _log.info("%s gets the files of %.12s", peer.name, order.send)
                await send_over(connection, self._supply, order.send, state.name)
        except (ProblemError, SenderLostError, OSError, ConnectionClosed) as error:
            _log.warning("the coordinator `%s` was not copied to, or from: %s", peer.name, error)
            if order.take:
                self._not_taken[order.take] = time.monotonic() + RETRY_S
        await connection.close()

    async def _order(self, state: CopyState) -> CopyOrder:
        """Return what another coordinator is to do, at the latest after a while."""
        end = time.monotonic() + WAIT_S
        while True:
            change = self._changed.next
            needed, kept = await self._kept.look()
            now = time.time()
            keep = [*needed]
            keep += [
                each.release
                for each in kept
                if each.release not in needed and stays(each.release, each.at, needed, now)
            ]
            here = await asyncio.to_thread(self._sendable, keep)
            self._not_taken = {
                each: at for each, at in self._not_taken.items() if at > time.monotonic()
            }
            order = order_for(state, keep[:MAX_RELEASES], here, self._not_taken)
            lacking = [each for each in needed if each in here and each not in state.complete]
            self._note(state, lacking)
            rest = end - time.monotonic()
            if order.send or order.take or rest <= 0:
                return order
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await change.wait()

    def _sendable(self, releases: Collection[str]) -> set[str]:
        assert self._supply is not None
        return {each for each in releases if not self._supply.trouble(each)}

    def _note(self, state: CopyState, lacking: list[str]) -> None:
        name = state.name[:MAX_TEXT]
        trouble = state.trouble[:MAX_TEXT] if state.failed in lacking else ""
        self._others.pop(name, None)
        self._others[name] = OtherCoordinator(name, time.time(), lacking, trouble)
        while len(self._others) > MAX_OTHERS:
            del self._others[next(iter(self._others))]


def order_for(
    state: CopyState, keep: list[str], here: Collection[str], not_taken: Collection[str] = ()
) -> CopyOrder:
    """Return what a coordinator is to do that has `state`. A pure function.

    `keep` are the releases that stay, the needed ones first; the files of those in `here` can be
    sent. What this coordinator lacks comes first, unless it is in `not_taken`: robots may wait.
    """
    theirs = {*state.complete}
    take = next((e for e in keep if e in theirs and e not in here and e not in not_taken), "")
    lacking = [each for each in keep if each in here and each not in theirs]
    # One that has failed, for example because it is too large, does not keep out the others.
    lacking.sort(key=lambda each: each == state.failed)
    return CopyOrder(keep=keep, send="" if take else next(iter(lacking), ""), take=take)


async def hear(connection: Connection, kind: type[T], seconds: float) -> T:
    """Return the message of the other end. Raises ControlError or ConnectionClosed."""
    try:
        async with asyncio.timeout(seconds):
            return msgspec.json.decode(await connection.recv(), type=kind)
    except TimeoutError:
        raise ControlError("deadline", f"it said nothing for {seconds:g} s") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ControlError("bad-request", f"it sends something else: {error}") from None


async def send_over(connection: Connection, supply: Supply, release: str, name: str) -> None:
    """Send the files of a release to the other end, called `name`. Raises ProblemError."""
    unused = [connection]

    @asynccontextmanager
    async def once(_machine: str) -> AsyncIterator[Connection]:
        if not unused:
            raise ControlError("conflict", "it connects again")
        yield unused.pop()

    sent = await supply.send(release, Machine(name, name), connect=once)
    _log.info("%s has the files of %.12s: %s", name, release, sent)
