"""Do what an operator has chosen and confirmed, and say what came of it for each target."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.paramtext import allowed_text, json_text
from dorad.phrases import first_of
from dorad.record.box.incidents import MAX_NOTE
from dorafleet.console.console import Console
from dorafleet.console.model import plans
from dorafleet.console.model.commands import Action, actions_for, why_no_action
from dorafleet.console.model.params import with_value
from dorafleet.console.model.targets import Target, in_common, with_release
from dorafleet.console.widgets.ask import Ask
from dorafleet.console.widgets.confirm import Choose, Confirm

AT_ONCE = 8
"""Targets that are asked at the same time."""
PLAN_S = 2.0
"""Seconds that a question waits for what its action would change."""
READ_S = 0.3
"""Shortest time, seconds, in which an operator reads a dialog that is on his terminal."""
CHOICE_KEYS = "123456789"
"""Keys of dataflows to choose from; of more the rest can be named after `:`."""
MAX_LEFT_OUT = 3
"""Dataflows that a question names because it does not offer them."""
NO_BLACK_BOX = "no incident: no black box (`record: {keep: 60s}` adds one)"
RESULT_S = 10.0
FAILURE_S = 60.0
"""Seconds for which a result is shown."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ActionOutcome:
    """The result of one action."""

    title: str
    total: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by target."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What was said about it beyond that, by target for which it is done."""

    def fail(self, target: str, problem: str) -> None:
        """Record why an action is not done to a target."""
        self.failed[target] = problem

    def succeed(self, target: str, remark: str = "") -> None:
        """Record that an action is done to a target, and what else is to say."""
        self.done += 1
        if remark:
            self.remarks[target] = remark

    @property
    def style(self) -> str:
        """How the text looks."""
        if self.failed:
            return "fail"
        return "ok" if self.done == self.total else "dim"

    @property
    def text(self) -> str:
        """The result in words. Targets of which the same is said are named together."""
        open_ = self.total - self.done - len(self.failed)
        count = "" if self.total == 1 else f" {self.done} of {self.total}"
        if open_:
            text = f"{self.title}: under way" + (f",{count} done" if count else "")
        elif not self.failed:
            text = f"{self.title}: done" + (f", {self.done} times" if self.total > 1 else "")
        else:
            text = f"{self.title}:{count} done" if count else f"{self.title}: failed"
        for problem, names in _by_text(self.failed).items():
            text += f"; {', '.join(names)}: {problem}"
        for remark, names in _by_text(self.remarks).items():
            text += f"; {', '.join(names)}: {remark}" if self.total > 1 else f"; {remark}"
        return text


def _by_text(said: Mapping[str, str]) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for target, text in said.items():
        targets.setdefault(text, []).append(target)
    return targets


class Actions:
    """Actions of one console, one after another."""

    def __init__(self, app: Console) -> None:
        self._app = app
        self._running: ActionOutcome | None = None
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
            menu = Choose(f"Actions for {what}", titles)
            boxes = [each.key for each in actions if each.kind == "box"]
            looking = asyncio.create_task(self._recorded(targets, menu, boxes))
            try:
                key = await app.push_screen_wait(menu)
                # It may have been chosen before the answer.
                recorded = await looking if key in boxes else []
            finally:
                looking.cancel()
            if not key:
                return
            action, left_out_text = by_key[key], ""
            if action.kind == "box":
                if not recorded:
                    app.report(NO_BLACK_BOX, "warn")
                    return
                names = {str(each) for each in recorded}
                unrecorded = [str(each) for each in targets if str(each) not in names]
                if unrecorded:
                    without = first_of(unrecorded, MAX_LEFT_OUT)
                    left_out_text = f"Left out, without a black box: {without}."
                targets = await self._with_note(action, await self._with_dataflow(recorded))
            elif action.kind == "dataflow":
                known = self._with_releases(targets)
                left_out = sorted(set(targets[0].choices) - set(known[0].choices))
                targets = await self._with_dataflow(known, left_out)
            elif action.kind in ("alert", "instance"):
                targets = [each._replace(title=each.about or each.title) for each in targets]
            elif action.asks:
                targets = await self._with_value(action, targets)
            if not targets:
                return
            command = app.command_line(action.argv(targets[0]))
            plan = left_out_text or await self._plan(action, targets)
            confirm = Confirm(
                action, targets, command, plan, readable_after=app.frames.took_s + READ_S
            )
            confirmed = await app.push_screen_wait(confirm)
        finally:
            self.asks = False
        if confirmed:
            # Beside the screens: another key must not end it half way.
            app.in_background(self._do(action, targets))
        else:
            app.report("nothing was changed", "dim")

    async def _recorded(
        self, targets: Sequence[Target], menu: Choose, keys: Sequence[str]
    ) -> list[Target]:
        """Return the targets that have a black box, with those dataflows as choices.

        Without any, the menu says so at `keys`. A dataflow of which the server does not tell is
        kept: the answer to the action says what is wrong with it.
        """
        if not keys:
            return []
        server, limit = self._app.server, asyncio.Semaphore(AT_ONCE)

        async def has_box(dataflow: str) -> bool:
            try:
                async with limit, asyncio.timeout(PLAN_S):
                    listed = await server.call(m.INCIDENT_LIST, m.Ref(dataflow=dataflow))
            except (ControlError, TimeoutError) as error:
                _log.debug("whether %s has a black box is not known: %s", dataflow, error)
                return True
            return bool(listed.boxes or listed.missing)

        async def one(target: Target) -> list[Target]:
            if target.dataflow:
                return [target] * await has_box(target.dataflow)
            names = (server.named(target.robot, each) for each in target.choices)
            choices = tuple(compress(target.choices, await asyncio.gather(*map(has_box, names))))
            return [target._replace(choices=choices)] * bool(choices)

        told = await asyncio.gather(*map(one, targets[: plans.MAX_TARGETS]))
        recorded = [each for some in told for each in some] + list(targets[plans.MAX_TARGETS :])
        for key in keys if not recorded else ():
            menu.refuse(key, NO_BLACK_BOX)
        return recorded

    def go_about(self, place: str, target: Target) -> None:
        """Open a screen about a dataflow of a robot, which the operator chooses."""
        self.asks = True
        self._app.run_worker(self._go_about(place, target), exclusive=True)

    async def _go_about(self, place: str, target: Target) -> None:
        try:
            targets = await self._with_dataflow([target])
        finally:
            self.asks = False
        for each in targets:
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
        changed: list[Target] = []

        def problem(text: str) -> str:
            checked = with_value(targets, text)
            if isinstance(checked, str):
                return checked
            changed[:] = checked
            return ""

        many = f"{len(targets)} parameters" if len(targets) > 1 else str(targets[0])
        allowed = ", ".join(filter(None, (param.type, allowed_text(param))))
        facts = f"{action.asks}" + (f": {allowed}" if allowed else "")
        ask = Ask(f"{action.title} {many}", facts, json_text(param.value), problem)
        return changed if await self._app.push_screen_wait(ask) else []

    async def _with_note(self, action: Action, targets: list[Target]) -> list[Target]:
        """Let the operator type a note; return no targets if he does not."""
        if not targets:
            return []
        notes = [""]

        def problem(text: str) -> str:
            notes[0] = text.strip()
            return "" if len(text) <= MAX_NOTE else f"at most {MAX_NOTE} characters"

        many = f"{len(targets)} dataflows" if len(targets) > 1 else str(targets[0])
        typed = await self._app.push_screen_wait(
            Ask(f"Incident of {many}", action.asks, "", problem)
        )
        return [each._replace(note=notes[0]) for each in targets] if typed else []

    async def _plan(self, action: Action, targets: Sequence[Target]) -> str:
        """Return what an action would change, as far as the server tells at once."""
        method = plans.method_of(action)
        if method is None:
            return ""
        server = self._app.server
        limit = asyncio.Semaphore(AT_ONCE)
        details: list[plans.Detail] = []
        unknown: dict[str, str] = {}

        async def one(target: Target) -> None:
            try:
                async with limit:
                    details.append(await server.call(method, plans.params_of(action, target)))
            except ControlError as error:
                unknown[str(target)] = error.message

        asked = targets[: plans.MAX_TARGETS]
        try:
            async with asyncio.timeout(PLAN_S):
                await asyncio.gather(*map(one, asked))
        except TimeoutError:
            unknown["the server"] = f"no answer within {PLAN_S:g} s"
        left = len(targets) - len(asked)
        return plans.text(action, details, unknown, left)

    async def _do(self, action: Action, targets: Sequence[Target]) -> None:
        outcome = self._running = ActionOutcome(action.title, len(targets))
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(target: Target) -> None:
            async with limit:
                await self._try(action, target, outcome)
            self._app.report(outcome.text, outcome.style, FAILURE_S)

        self._app.report(outcome.text, outcome.style, FAILURE_S)
        try:
            await asyncio.gather(*map(one, targets))
        finally:
            self._running = None
        self._app.report(outcome.text, outcome.style, FAILURE_S if outcome.failed else RESULT_S)

    async def _try(self, action: Action, target: Target, outcome: ActionOutcome) -> None:
        """Do it to one target, and record what came of it."""
        _log.debug("%s: %s", action.method.name, target)
        server, name = self._app.server, str(target)
        try:
            result = await server.call(action.method, action.params(target))
        except ControlError as error:
            outcome.fail(name, error.message + (f" ({error.hint})" if error.hint else ""))
        else:
            outcome.succeed(name, action.remark(result))
