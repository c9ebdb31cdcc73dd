"""Do what an operator has chosen and confirmed, and say what came of it for each target."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.paramtext import allowed_text, json_text
from dorad.phrases import first_of
from dorafleet.console.model.commands import actions_for, why_no_action
from dorafleet.console.model.outcome import Outcome
from dorafleet.console.model.params import with_value
from dorafleet.console.model.targets import in_common, with_release
from dorafleet.console.widgets.ask import Ask
from dorafleet.console.widgets.confirm import Choose, Confirm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.model.commands import Action
    from dorafleet.console.model.targets import Target

AT_ONCE = 8
"""Targets that are asked at the same time."""
READ_S = 0.3
"""Shortest time, seconds, in which an operator reads a dialog that is on his terminal."""
CHOICE_KEYS = "123456789"
"""Keys of dataflows to choose from; of more the rest can be named after `:`."""
MAX_LEFT_OUT = 3
"""Dataflows that a question names because it does not offer them."""
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
        known = self._with_releases(targets)
        return actions_for(known, app.server.link.role, readonly=app.options.readonly)

    def _with_releases(self, targets: Sequence[Target]) -> list[Target]:
        return [with_release(each, self._app.server.fleet.rows) for each in targets]

    def choose(self, targets: list[Target]) -> None:
        """Let the operator choose an action, confirm it, and do it."""
        app = self._app
        if self._running is not None:
            app.report(f"{self._running.text}; wait for its end", "warn")
            return
        actions = self.possible(targets)
        if not actions:
            role, readonly = app.server.link.role, app.options.readonly
            known = self._with_releases(targets)
            app.report(why_no_action(known, role, readonly=readonly), "warn")
            return
        self.asks = True
        app.run_worker(self._ask(actions, targets), exclusive=True)

    async def _ask(self, actions: Sequence[Action], targets: list[Target]) -> None:
        app = self._app
        what = str(targets[0]) if len(targets) == 1 else f"{len(targets)} rows"
        try:
            by_key = {action.key: action for action in actions}
            titles = {key: action.title for key, action in by_key.items()}
            key = await app.push_screen_wait(Choose(f"Actions for {what}", titles))
            if not key:
                return
            action = by_key[key]
            if action.kind == "dataflow":
                known = self._with_releases(targets)
                left_out = sorted(set(targets[0].choices) - set(known[0].choices))
                targets = await self._with_dataflow(known, left_out)
            elif action.kind == "alert":
                targets = [each._replace(title=each.about or each.title) for each in targets]
            elif action.asks:
                targets = await self._with_value(action, targets)
            if not targets:
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

    def go_about(self, place: str, target: Target) -> None:
        """Open a screen about a dataflow of a robot, which the operator chooses."""
        self.asks = True
        self._app.run_worker(self._go_about(place, target), exclusive=True)

    async def _go_about(self, place: str, target: Target) -> None:
        try:
            found = await self._with_dataflow([target])
        finally:
            self.asks = False
        for each in found:
            self._app.go_about(place, each)

    async def _with_dataflow(
        self, targets: list[Target], left_out: Sequence[str] = ()
    ) -> list[Target]:
        """Let the operator choose a dataflow of robots that run several; none if he does not.

        Of those that are `left_out` the question says why, also if only one is left.
        """
        if all(each.dataflow for each in targets):
            return targets
        app = self._app
        names = in_common(targets)
        if not names:
            app.report("these robots have no dataflow in common", "warn")
            return []
        name = names[0]
        if len(names) > 1 or left_out:
            what = targets[0].robot if len(targets) == 1 else f"these {len(targets)} robots"
            listed = dict(zip(CHOICE_KEYS, names, strict=False))
            more = f" (the first {len(listed)} of {len(names)})" if len(names) > len(listed) else ""
            if left_out:
                more += f" Only rollouts start and stop {first_of(left_out, MAX_LEFT_OUT)}."
            key = await app.push_screen_wait(Choose(f"Which dataflow of {what}?{more}", listed))
            if not key:
                return []
            name = listed[key]
        return [
            each._replace(
                dataflow=app.server.named(each.robot, name), title=f"{each.robot}: {name}"
            )
            for each in targets
        ]

    async def _with_value(self, action: Action, targets: list[Target]) -> list[Target]:
        """Let the operator type a value for these parameters; none if he does not."""
        param = targets[0].param
        assert param is not None
        found: list[Target] = []

        def problem(text: str) -> str:
            checked = with_value(targets, text)
            if isinstance(checked, str):
                return checked
            found[:] = checked
            return ""

        many = f"{len(targets)} parameters" if len(targets) > 1 else str(targets[0])
        allowed = ", ".join(filter(None, (param.type, allowed_text(param))))
        facts = f"{action.asks}" + (f": {allowed}" if allowed else "")
        ask = Ask(f"{action.title} {many}", facts, json_text(param.value), problem)
        return found if await self._app.push_screen_wait(ask) else []

    async def _do(self, action: Action, targets: Sequence[Target]) -> None:
        found = self._running = Outcome(action.title, len(targets))
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(target: Target) -> None:
            async with limit:
                await self._try(action, target, found)
            self._app.report(found.text, found.style, FAILURE_S)

        self._app.report(found.text, found.style, FAILURE_S)
        try:
            await asyncio.gather(*map(one, targets))
        finally:
            self._running = None
        self._app.report(found.text, found.style, FAILURE_S if found.failed else RESULT_S)

    async def _try(self, action: Action, target: Target, found: Outcome) -> None:
        """Do it to one target, and record what came of it."""
        _log.debug("%s: %s", action.method.name, target)
        server, name = self._app.server, str(target)
        try:
            result = await server.call(action.method, action.params(target))
        except ControlError as error:
            found.fail(name, error.message + (f" ({error.hint})" if error.hint else ""))
        else:
            found.succeed(name, action.remark(result))
