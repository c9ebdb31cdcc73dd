"""The strategy of a rollout from a YAML file and from options, which replace its keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dorad.control.messages.releases import HealthRules
from dorad.dataflow.document import read_document
from dorad.dataflow.durations import parse_duration
from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.text import read_text
from dorafleet.rollout.strategy import Batch, Budget, Strategy, problems

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.value import Value

MAX_FILE = 1 << 20
RULES = HealthRules.__struct_fields__
"""Keys that the robot judges by. In the file they are beside the others."""
KEYS = tuple(key for key in Strategy.__struct_fields__ if key != "rules") + RULES

_START = "a strategy has keys such as `canary: 1`"
_TIMES = (*RULES[:3], "progress_deadline", "busy_max", "catch_up", "soak_time")
_INVALID = re.compile(r"(?P<reason>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)


class StrategyFile:
    """A strategy file; without one all keys come from options."""

    def __init__(self, path: Path | None) -> None:
        self._problems = Problems("the options" if path is None else str(path))
        self._root: Value | None = None
        if path is None:
            return
        text = read_text(path, self._problems, "a strategy file", largest=MAX_FILE, pipes=True)
        root = None if text is None else read_document(text, self._problems, _START)
        if root is not None and not isinstance(root.data, dict):
            self._problems.error(root, f"must have keys, not {root.describe()}", _START)
        elif root is not None:
            _check_keys(root, self._problems)
            self._root = root
        self._stop_after_mistakes()

    def strategy(self, options: Mapping[str, Any]) -> Strategy:
        """Return the strategy; `options` replace keys of the file.

        Raises:
            DataflowError: the file has mistakes, sorted by position.
            click.UsageError: an option has one.
        """
        keys: dict[str, Any] = {} if self._root is None else self._root.plain()
        keys |= options
        rules = {key: keys.pop(key) for key in RULES if key in keys}
        try:
            strategy = msgspec.convert({**keys, "rules": rules}, Strategy)
        except msgspec.ValidationError as error:
            match = _INVALID.fullmatch(str(error))
            assert match is not None
            key = (match["path"] or "").removeprefix("rules.")
            self._report(key, match["reason"], None, options)
        else:
            for wrong in problems(strategy):
                self._report(wrong.key, wrong.reason, wrong.hint, options)
        self._stop_after_mistakes()
        return strategy

    def _report(self, key: str, reason: str, hint: str | None, options: Mapping[str, Any]) -> None:
        """Report a mistake at its place in the file, else raise that of an option."""
        if self._root is None or _first(key) in options:
            notes = f" ({hint})" if hint else ""
            raise click.UsageError(f"{key}: {reason}{notes}")
        value = _nearest(self._root, key)
        self._problems.at(value.line, value.column, reason, hint, key=key)

    def _stop_after_mistakes(self) -> None:
        if self._problems.errors:
            raise DataflowError(in_order(self._problems.errors), "the strategy has errors")


def _check_keys(root: Value, mistakes: Problems) -> None:
    """Report unknown keys, and make durations numbers of seconds."""
    body = Fields(root, mistakes)
    body.ignore(*KEYS)
    for key in _TIMES:
        value = body.take(key)
        if value is not None and isinstance(value.data, str):
            try:
                value.data = parse_duration(value.data)
            except TextError as error:
                mistakes.text_error(value, error)
    body.finish()
    batches, budget = body.take("batches"), body.take("disruption_budget")
    items = batches.data if batches is not None and isinstance(batches.data, list) else []
    for item, kind in (*((each, Batch) for each in items), (budget, Budget)):
        if item is not None and isinstance(item.data, dict):
            block = Fields(item, mistakes)
            block.ignore(*kind.__struct_fields__)
            block.finish()


def _first(key: str) -> str:
    return re.split(r"[.\[]", key)[0]


def _nearest(root: Value, key: str) -> Value:
    """Return the value at a key, or the nearest around it that the file has."""
    value, rest = root, key
    while rest:
        if isinstance(value.data, dict):
            # Names of outputs have dots: the longest name counts.
            names = [name for name in value.data if f"{rest}.".startswith((f"{name}.", f"{name}["))]
            if not names:
                return value
            name = max(names, key=len)
            value, rest = value.data[name], rest[len(name) :].removeprefix(".")
        elif isinstance(value.data, list) and (match := re.match(r"\[(\d+)\]\.?", rest)):
            value, rest = value.data[int(match[1])], rest[match.end() :]
        else:
            return value
    return value
