"""Fetch files of releases over a connection of their own, where SSH cannot reach this robot.

The coordinator asks for it, and sends over the new connection what it would send over SSH: the same
receiver takes it, into the same store.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from dorad.control.errors import ControlError
from dorad.release.connection import receive_over
from dorad.release.errors import ReleaseError
from dorad.release.receive import SenderLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from websockets.asyncio.client import ClientConnection

    from dorad.release.trees import Trees

    Open = Callable[[str], AbstractAsyncContextManager[ClientConnection]]
    """Opens a connection for files, with the ticket of the coordinator. Raises ControlError."""

_log = logging.getLogger(__name__)


class Files:
    """At most one connection for files; a newer request ends the one before."""

    def __init__(self, trees: Callable[[], Trees], open_: Open, on_end: Callable[[], None]) -> None:
        """`on_end` is called when files may have arrived."""
        self._trees = trees
        self._open = open_
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    def fetch(self, ticket: str) -> None:
        """Begin to fetch what the coordinator sends."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._run(ticket), name="files of a release")

    async def close(self) -> None:
        """End the connection; what has arrived is kept."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, ticket: str) -> None:
        try:
            async with self._open(ticket) as connection:
                release = await receive_over(connection, self._trees())
            _log.info("release %.12s is here", release)
        except (ControlError, ReleaseError, SenderLostError, OSError, ConnectionClosed) as error:
            _log.warning("files of a release, what has arrived is kept: %s", error)
        finally:
            self._on_end()
