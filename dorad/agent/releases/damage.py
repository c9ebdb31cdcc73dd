"""Repair the files of the releases that run here, and report those that are lost."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NoReturn

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.agent.releases.library import Library

EVERY_S = 30.0
"""Time between two checks of all files."""
DAMAGED_EVERY_S = 3.0
"""The same while files are lost, which may arrive at any moment."""
MAX_LOAD = 0.02
"""Maximum fraction of the time spent on checks."""

_log = logging.getLogger(__name__)


class DamageCheck:
    """Checks the files of the releases in use."""

    def __init__(
        self, library: Library, in_use: Callable[[], set[str]], on_change: Callable[[], None]
    ) -> None:
        """`in_use` returns releases; `on_change` is called when `lost` has changed."""
        self._library = library
        self._in_use = in_use
        self._on_change = on_change
        self.lost: dict[str, str] = {}
        """By release: which files must be sent to this robot again."""

    async def run(self) -> NoReturn:
        """Check until cancelled."""
        while True:
            began = time.monotonic()
            try:
                found = await asyncio.to_thread(self._library.repair, self._in_use())
            except ControlError as error:
                _log.warning("files of releases cannot be checked: %s", error)
                found = self.lost
            if found != self.lost:
                for release, text in found.items():
                    _log.warning("release %.12s: %s", release, text)
                self.lost = found
                self._on_change()
            usual = DAMAGED_EVERY_S if found else EVERY_S
            await asyncio.sleep(max(usual, (time.monotonic() - began) / MAX_LOAD))
