"""The files of releases on this machine, sent to one robot at a time as robots ask for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorafleet.release.errors import BuildError
from dorafleet.release.pieces import Pieces
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.sending import Sent
    from dorafleet.release.store import Store

_log = logging.getLogger(__name__)


class Supply:
    """Sends releases of a store. Concurrent transfers share their prepared files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: Pieces | None = None
        self._running = 0

    def trouble(self, release: str) -> str:
        """Return why a release, given by its id, cannot be sent from here; empty if it can."""
        try:
            bundle = self._store.find(release)
        except BuildError as error:
            return str(error)
        lacking = self._store.lacking(bundle.manifest)
        return f"{len(lacking)} of its files are not in {self._store.folder}" if lacking else ""

    async def send(
        self,
        release: str,
        machine: Machine,
        on_progress: Callable[[Progress], object] = lambda _: None,
    ) -> Sent:
        """Send a machine what it lacks of a release.

        Raises:
            SshError: code `refused` if the machine does not take it.
        """
        from dorafleet.release.transfer import send  # asyncssh takes a while

        if self._pieces is None:
            self._pieces = Pieces(self._store)
            await asyncio.to_thread(self._pieces.__enter__)
        self._running += 1
        _log.debug("%s: release %.12s is sent", machine.id, release)
        try:
            bundle = await asyncio.to_thread(self._store.find, release)
            (outcome,) = await send(
                [machine], bundle, self._store, on_progress, pieces=self._pieces
            )
        except (BuildError, OSError) as error:
            raise SshError(Code.FAILED, str(error)) from error
        finally:
            self._running -= 1
            if not self._running and self._pieces is not None:
                # Prepared files take as much room as the release.
                pieces, self._pieces = self._pieces, None
                pieces.__exit__(None, None, None)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        return outcome.result
