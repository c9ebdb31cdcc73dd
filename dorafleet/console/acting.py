"""Do what an operator has chosen and confirmed, and say what came of it for each target."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorafleet.console.model.commands import METHODS, actions_for, why_no_action
from dorafleet.console.model.outcome import Outcome
from dorafleet.console.widgets.confirm import Choose, Confirm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.model.commands import Action, Target

AT_ONCE = 8
"""Targets that are asked at the same time."""
READ_S = 0.3
"""Shortest time, seconds, in which an operator reads a dialog that is on his terminal."""
RESULT_S = 10.0
FAILURE_S = 60.0
"""Seconds for which a result is shown."""

_log = logging.getLogger(__name__)


class Acting:
    """Actions of one console, one after another."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._running: Outcome | None = None
        self.asks = False
        """Whether a dialog is open, or is about to be opened."""

    def possible(self, targets: Sequence[Target]) -> list[Action]:
        """Return what may be done to all of these targets."""
        app = self._app
        return actions_for(targets, app.server.link.role, readonly=app.options.readonly)

    def choose(self, targets: list[Target]) -> None:
        """Let the operator choose an action, confirm it, and do it."""
        app = self._app
        if self._running is not None:
            app.report(f"{self._running.text}; wait for its end", "warn")
            return
        actions = self.possible(targets)
        if not actions:
            role, readonly = app.server.link.role, app.options.readonly
            app.report(why_no_action(targets, role, readonly=readonly), "warn")
            return
        self.asks = True
        app.run_worker(self._ask(actions, targets), exclusive=True)

    async def _ask(self, actions: Sequence[Action], targets: list[Target]) -> None:
        app = self._app
        what = str(targets[0]) if len(targets) == 1 else f"{len(targets)} rows"
        try:
            action = await app.push_screen_wait(Choose(actions, what))
            if action is None:
                return
            command = app.command_line(action.argv(targets[0]))
            confirm = Confirm(action, targets, command, readable_after=app.frames.took_s + READ_S)
            confirmed = await app.push_screen_wait(confirm)
        finally:
            self.asks = False
        if confirmed:
            # Beside the screens: another key must not end it half way.
            app.in_background(self._do(action, targets))
        else:
            app.report("nothing was changed", "dim")

    async def _do(self, action: Action, targets: Sequence[Target]) -> None:
        found = self._running = Outcome(action.title, len(targets))
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(target: Target) -> None:
            async with limit:
                problem = await self._try(action, target)
            found.add(str(target), problem)
            self._app.report(found.text, found.style, FAILURE_S)

        self._app.report(found.text, found.style, FAILURE_S)
        try:
            await asyncio.gather(*map(one, targets))
        finally:
            self._running = None
        self._app.report(found.text, found.style, FAILURE_S if found.failed else RESULT_S)

    async def _try(self, action: Action, target: Target) -> str:
        """Return why it failed; empty if it is done."""
        _log.debug("%s: %s", action.method, target)
        server = self._app.server
        try:
            await server.call(action.method, action.params(target), METHODS[action.method].result)
        except ControlError as error:
            return error.message + (f" ({error.hint})" if error.hint else "")
        return ""
