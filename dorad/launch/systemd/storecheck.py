"""Check that systemd keeps all descriptors of the FD store: it does not report those it refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.launch.systemd.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.launch.systemd.manager import Manager
    from dorad.launch.systemd.notify import Notifier
    from dorad.launch.systemd.store import SystemdStore

_DELAY_SECONDS = 1.0
_COUNTS = ("NFileDescriptorStore", "FileDescriptorStoreMax")
_log = logging.getLogger(__name__)


class StoreCheck:
    """Compares the number of descriptors in systemd's store with the number sent."""

    def __init__(
        self, store: SystemdStore, notifier: Notifier, manager: Manager, own_unit: str
    ) -> None:
        self.on_problem: Callable[[str], None] = _log.warning
        """Called with one line when systemd keeps fewer descriptors than it was sent."""
        self._store = store
        self._notifier = notifier
        self._manager = manager
        self._own_unit = own_unit
        self._due = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Check in a second, once for all calls until then."""
        self._due = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop checking. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while self._due:
            await asyncio.sleep(_DELAY_SECONDS)
            self._due = False
            await self._check()
        self._task = None

    async def _check(self) -> None:
        expected = self._store.count
        try:
            await self._notifier.barrier()
            values = await self._manager.values(self._own_unit, _COUNTS)
        except (BusError, OSError) as error:
            _log.warning("the number of descriptors that systemd keeps is unknown: %s", error)
            return
        kept = values.get("NFileDescriptorStore", 0)
        _log.debug("systemd keeps %d descriptors, expected %d", kept, expected)
        if kept < min(expected, self._store.count):
            limit = values.get("FileDescriptorStoreMax", 0)
            self.on_problem(
                f"systemd keeps {kept} of {expected} descriptors; the others would be lost if"
                f" dorad were restarted (FileDescriptorStoreMax={limit} of {self._own_unit};"
                " raise it)"
            )
