"""Typed getters over one mapping of the file: each checks, reports, and returns a plain value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from dorad.dataflow.errors import TextError
from dorad.dataflow.nearest import did_you_mean, nearest
from dorad.dataflow.problems import Problems, hint_for
from dorad.dataflow.sizes import parse_size
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from enum import StrEnum

    from dorad.dataflow.value import Value

    _Choice = TypeVar("_Choice", bound=StrEnum)
    _T = TypeVar("_T")
    _D = TypeVar("_D")

MAX_SECONDS = float(2**64)
_MAX_INTEGER = 2**63 - 1


class Fields:
    """The keys of one mapping. A key that is absent or has no value reads as its default.

    A getter reports a wrong value and returns the default, so that reading continues and finds the
    next mistake. `finish` reports the keys that no getter has read.
    """

    def __init__(self, owner: Value, problems: Problems, what: str = "a mapping") -> None:
        self.owner = owner
        self.problems = problems
        self._asked: dict[str, None] = {}
        self._missing: dict[str, str | None] = {}
        self._values: Mapping[str, Value] = {}
        if isinstance(owner.data, dict):
            self._values = owner.data
        elif owner.data is not None:
            problems.error(owner, f"must be {what}, not {owner.describe()}")

    @property
    def names(self) -> tuple[str, ...]:
        """All keys of the mapping."""
        return tuple(self._values)

    def take(self, name: str) -> Value | None:
        """Return the value unchecked, or None."""
        self._asked[name] = None
        value = self._values.get(name)
        return None if value is None or value.data is None else value

    def has(self, name: str) -> bool:
        """Return True if the key has a value."""
        value = self._values.get(name)
        return value is not None and value.data is not None

    def name_of(self, name: str) -> Value:
        """Return the value to point at for a key: its own, or the mapping that lacks it."""
        return self._values.get(name, self.owner)

    def inside(self, name: str, what: str = "a mapping") -> Fields | None:
        """Return the getters of a nested mapping, or None."""
        value = self.take(name)
        return None if value is None else Fields(value, self.problems, what)

    def items(self, name: str) -> list[Value]:
        """Return the items of a list."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value.data, list):
            hint = None
            if isinstance(value.data, dict):
                hint = "begin each entry with `- `"
            elif value.text.strip() and value.text.isprintable():
                hint = f"write `{name}: [{shorten(value.text)}]`"
            self.problems.error(value, f"must be a list, not {value.describe()}", hint)
            return []
        return value.data

    def entries(self, name: str) -> dict[str, Value]:
        """Return the entries of a mapping whose names the user chooses."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value.data, dict):
            hint = None
            if isinstance(value.data, list):
                hint = f"give each entry a name, as in `{name}: {{name: ...}}`"
                pairs = (isinstance(each.data, dict) and len(each.data) == 1 for each in value.data)
                if value.data and all(pairs):
                    hint = "write the entries without `- `"
            elif value.text.strip() and value.text.isprintable():
                hint = f"give it a name: `{name}: {{name: {shorten(value.text)}}}`"
            self.problems.error(value, f"must be a mapping, not {value.describe()}", hint)
            return {}
        merged = value.data.get("<<")
        if merged is None:
            return value.data
        self.problems.merge_key(merged)
        return {key: entry for key, entry in value.data.items() if entry is not merged}

    def text(self, name: str) -> str | None:
        """Return a text; a number or boolean reads as the file spells it."""
        value = self.take(name)
        return None if value is None else scalar_text(value, self.problems)

    def required_text(self, name: str, hint: str | None = None) -> str:
        """Return a required text; an empty one if it is missing, which `finish` reports."""
        if not self.has(name):
            self._asked[name] = None
            self._missing[name] = hint
            return ""
        return self.checked(name, _not_empty, "")

    def checked(self, name: str, check: Callable[[str], _T], default: _D) -> _T | _D:
        """Return the value that `check` makes from a text; `check` may raise TextError."""
        value = self.take(name)
        if value is None:
            return default
        text = scalar_text(value, self.problems)
        if text is None:
            return default
        try:
            return check(text)
        except TextError as error:
            self.problems.text_error(value, error)
            return default

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        value = self.take(name)
        if value is None or isinstance(value.data, bool):
            return None if value is None else bool(value.data)
        text = value.data.lower() if isinstance(value.data, str) else ""
        hint = {"yes": "write `true`", "on": "write `true`", "true": "without quotes"} | {
            "no": "write `false`",
            "off": "write `false`",
            "false": "without quotes",
        }
        self.problems.error(value, f"must be true or false, not {value.describe()}", hint.get(text))
        return None

    def integer(self, name: str, *, minimum: int = 0, maximum: int = _MAX_INTEGER) -> int | None:
        """Return a whole number within bounds."""
        value = self.take(name)
        return None if value is None else integer(value, self.problems, minimum, maximum)

    def seconds(self, name: str, *, zero: bool = True, if_zero: str = "") -> float | None:
        """Return a finite number of seconds, at least 0, or above 0 without `zero`.

        `if_zero` is a warning about 0, for a key that dora 1.x accepts with it.
        """
        value = self.take(name)
        if value is None:
            return None
        data = value.data
        if isinstance(data, bool) or not isinstance(data, int | float):
            hint = "without quotes" if isinstance(data, str) and _is_number(data) else None
            self.problems.error(value, f"must be a number of seconds, not {value.describe()}", hint)
        elif not math.isfinite(data) or not 0 <= data < MAX_SECONDS or (data == 0 and not zero):
            bound = "0 or more" if zero else "above 0"
            self.problems.error(
                value, f"must be a finite number of seconds, {bound}, not {value.describe()}"
            )
        else:
            if data == 0 and if_zero:
                self.problems.warn(value, if_zero, "leave it out, or write a longer time")
            return float(data)
        return None

    def number(self, name: str, *, minimum: float, maximum: float) -> float | None:
        """Return a number within bounds."""
        value = self.take(name)
        if value is None:
            return None
        data = value.data
        if (
            isinstance(data, int | float)
            and not isinstance(data, bool)
            and minimum <= data <= maximum
        ):
            return float(data)
        hint = "without quotes" if isinstance(data, str) and _is_number(data) else None
        self.problems.error(
            value, f"must be a number from {minimum:g} to {maximum:g}, not {value.describe()}", hint
        )
        return None

    def size(self, name: str, *, minimum: int = 0) -> int | None:
        """Return a size in bytes, given as a whole number or with a unit."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value.data, float | bool) or not isinstance(value.data, str):
            return integer(value, self.problems, minimum, _MAX_INTEGER)
        size = self.checked(name, parse_size, None)
        if size is not None and size < minimum:
            self.problems.error(value, f"must be {minimum} bytes or more, not {value.describe()}")
            return None
        return size

    def choice(self, name: str, kinds: type[_Choice], *, any_case: bool = False) -> _Choice | None:
        """Return one member of an enumeration."""
        value = self.take(name)
        if value is None:
            return None
        text = value.text.lower() if any_case else value.text
        if not isinstance(value.data, dict | list) and text in list(kinds):
            return kinds(text)
        known = f"must be one of {', '.join(kinds)}"
        self.problems.error(
            value, f"{known}, not {value.describe()}", did_you_mean(value.text, kinds)
        )
        return None

    def texts(self, name: str, check: Callable[[str], object] | None = None) -> tuple[str, ...]:
        """Return a list of checked texts; drop duplicates with a warning."""
        items = self.items(name)
        texts = [scalar_text(item, self.problems, check) for item in items]
        warn_twice(items, self.problems)
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    def text_map(self, name: str) -> dict[str, str]:
        """Return a mapping of names to texts."""
        texts = {
            key: scalar_text(value, self.problems) for key, value in self.entries(name).items()
        }
        return {key: text for key, text in texts.items() if text is not None}

    def ignore(self, *names: str) -> None:
        """Mark keys as known that another reader handles."""
        self._asked.update(dict.fromkeys(names))

    def finish(
        self,
        instead: Mapping[str, str] | None = None,
        *,
        lenient: bool = False,
        elsewhere: Mapping[str, str] | None = None,
    ) -> set[str]:
        """Report unknown keys and missing required keys.

        `instead` has hints for keys of older versions and for keys that belong elsewhere. Return
        the known names that unknown keys probably misspell; those do not count as missing.

        With `lenient`, an unknown key is a warning and is removed from the tree, unless it probably
        misspells a missing required key. `elsewhere` has hints for some of them.
        """
        misspelt: set[str] = set()
        for name, value in list(self._values.items()):
            if name in self._asked:
                continue
            if instead and name in instead:
                self.problems.error_in_name(value, f"unknown key `{name}`", instead[name])
            elif name == "<<":
                self.problems.merge_key(value)
                misspelt.update(self._asked)
            elif lenient and nearest(name, self._asked) not in self._missing:
                hint = (elsewhere or {}).get(name.replace("-", "_")) or hint_for(name, self._asked)
                self.problems.ignored(value, name, hint)
                assert isinstance(self.owner.data, dict)
                del self.owner.data[name]
            else:
                self.problems.unknown(value, name, self._asked)
                misspelt.add(nearest(name, self._asked) or "")
        for name, hint in self._missing.items():
            if name not in misspelt:
                self.problems.error_in_name(self.name_of(name), f"needs `{name}`", hint)
        return misspelt


def _as_text(value: Value) -> str | None:
    """Return the hint for a list, or an entry with a value, in place of a text."""
    if isinstance(value.data, dict) and len(value.data) == 1 and value.key.endswith("]"):
        (name,) = value.data
        return f"write `- {shorten(name)}`" if name.isprintable() else None
    if not isinstance(value.data, list) or not value.data:
        return None
    if any(isinstance(each.data, dict | list) for each in value.data):
        return None
    name = value.key.rpartition(".")[2]
    if name == "build" and len(value.data) > 1:
        return "write `build: |`, and each command in a line below it"
    text = " ".join(each.text for each in value.data)
    single = name == "args" or len(value.data) == 1
    return f"write `{name}: {shorten(text)}`" if single and text.isprintable() else None


def scalar_text(
    value: Value, problems: Problems, check: Callable[[str], object] | None = None
) -> str | None:
    """Return the text of a scalar, None for other values; report those and errors of `check`.

    The tree keeps the text, too: `id: 1` is "1" for every reader of the descriptor.
    """
    if value.data is None or isinstance(value.data, dict | list):
        problems.error(value, f"must be text, not {value.describe()}", _as_text(value))
        return None
    value.data = value.text
    if check is not None:
        try:
            check(value.text)
        except TextError as error:
            problems.text_error(value, error)
    return value.text


def warn_twice(items: Iterable[Value], problems: Problems) -> None:
    """Warn about each item that is the same as one before it."""
    first: dict[str, Value] = {}
    for item in items:
        plain = item.plain()
        if plain is None:
            continue
        known = first.setdefault(repr(plain), item)
        if known is not item:
            what = item.text if isinstance(plain, str | int | float) else "the same"
            problems.warn(item, f"`{what}` is listed twice, first {known.where()}")


def one_of(words: Collection[str]) -> Callable[[str], str]:
    """Return a check that a text is one of these words."""

    def check(text: str) -> str:
        if text not in words:
            known = ", ".join(words)
            raise TextError(f"must be one of {known}, not `{text}`", did_you_mean(text, words))
        return text

    return check


def integer(value: Value, problems: Problems, minimum: int, maximum: int) -> int | None:
    """Return a whole number within bounds; report anything else and return None."""
    data = value.data
    if isinstance(data, int) and not isinstance(data, bool) and minimum <= data <= maximum:
        return data
    bounds = f", {minimum} or more" if maximum == _MAX_INTEGER else f" from {minimum} to {maximum}"
    hint = None
    if isinstance(data, str) and _is_number(data):
        hint = "without quotes"
    elif isinstance(data, int) and not isinstance(data, bool) and data > maximum:
        bounds = f" from {minimum} to {maximum}"
    problems.error(value, f"must be a whole number{bounds}, not {value.describe()}", hint)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _not_empty(text: str) -> str:
    if not text:
        raise TextError("cannot be empty")
    return text
