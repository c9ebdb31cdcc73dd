"""The files of releases on this machine, sent to one robot at a time as robots ask for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorafleet.release.errors import BuildError
from dorafleet.release.pieces import Pieces
from dorafleet.release.socketline import lines_over
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.socketline import Connect
    from dorafleet.release.store import Store
    from dorafleet.release.upload import Sent

_log = logging.getLogger(__name__)


class Supply:
    """Sends releases of several stores. Concurrent transfers share their prepared files."""

    def __init__(self, *stores: Store) -> None:
        """The first store that has a whole release sends it; messages are about the last one."""
        self._stores = tuple(map(_Prepared, stores))

    def trouble(self, release: str) -> str:
        """Return why a release, given by its id, cannot be sent from here; empty if it can."""
        troubles = [each.trouble(release) for each in self._stores]
        return troubles[-1] if all(troubles) else ""

    async def send(
        self,
        release: str,
        machine: Machine,
        on_progress: Callable[[Progress], object] = lambda _: None,
        connect: Connect | None = None,
    ) -> Sent:
        """Send a machine what it lacks of a release: over SSH, or a connection of `connect`.

        Raises:
            SshError: code `refused` if the machine does not take it; code `failed` if the store
                here cannot be used.
        """
        chosen = await asyncio.to_thread(self._choose, release)
        return await chosen.send(release, machine, on_progress, connect)

    def _choose(self, release: str) -> _Prepared:
        whole = (each for each in self._stores if not each.trouble(release))
        return next(whole, self._stores[-1])


class _Prepared:
    """A store, and what is prepared of it for the transfers that run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: Pieces | None = None
        """Set once its folder exists, until the last transfer has ended."""
        self._preparing = asyncio.Lock()
        self._running = 0

    def trouble(self, release: str) -> str:
        """See `Supply`."""
        try:
            bundle = self._store.find(release)
            lacking = self._store.lacking(bundle.manifest)
        except (BuildError, OSError) as error:
            return str(error)
        return f"{len(lacking)} of its files are not in {self._store.folder}" if lacking else ""

    async def send(
        self,
        release: str,
        machine: Machine,
        on_progress: Callable[[Progress], object],
        connect: Connect | None,
    ) -> Sent:
        """See `Supply`."""
        from dorafleet.release.transfer import send  # asyncssh takes a while

        self._running += 1
        _log.debug("%s: release %.12s is sent", machine.id, release)
        try:
            pieces = await self._prepared()
            bundle = await asyncio.to_thread(self._store.find, release)
            lines = None if connect is None else lines_over(connect)
            (outcome,) = await send(
                [machine], bundle, self._store, on_progress, pieces=pieces, lines=lines
            )
        except (BuildError, OSError) as error:
            raise SshError(Code.FAILED, str(error)) from error
        finally:
            self._running -= 1
            if not self._running and self._pieces is not None:
                # Prepared files take as much room as the release.
                unused, self._pieces = self._pieces, None
                unused.__exit__(None, None, None)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        return outcome.result

    async def _prepared(self) -> Pieces:
        """Return the prepared files that all transfers share, with their folder. Raises OSError."""
        async with self._preparing:
            if self._pieces is None:
                self._pieces = await asyncio.to_thread(Pieces(self._store).__enter__)
            return self._pieces
