"""Tasks that run as long as the daemon."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AsyncExitStack

_log = logging.getLogger(__name__)


def in_background(
    stack: AsyncExitStack,
    work: Coroutine[Any, Any, None],
    name: str,
    warn: Callable[[str], None],
) -> None:
    """Run `work` as a task that is cancelled when `stack` unwinds; warn if it fails."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s has failed", name, exc_info=error)
            warn(f"a task of the daemon has failed, until it is restarted: {name} ({error!r})")

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    stack.callback(task.cancel)
