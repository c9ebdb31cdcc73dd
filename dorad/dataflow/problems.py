"""Collect the problems of one file while it is read, so that all are reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.errors import Problem, TextError
from dorad.dataflow.nearest import did_you_mean
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.dataflow.value import Value

_MAX_LISTED = 16


class Problems:
    """The errors and warnings of one file; `via` are the nodes that name a module's file."""

    def __init__(self, file: str, via: tuple[str, ...] = ()) -> None:
        self.file = file
        self.via = via
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def at(
        self, line: int, column: int, message: str, hint: str | None = None, *, key: str = ""
    ) -> None:
        """Report an error at a position without a value."""
        self.errors.append(Problem(self.file, line, column, key, message, hint, self.via))

    def error(self, value: Value, message: str, hint: str | None = None) -> None:
        """Report an error in a value."""
        self.at(value.line, value.column, message, hint, key=value.key)

    def error_in_name(self, value: Value, message: str, hint: str | None = None) -> None:
        """Report an error in the name of a value, or in its presence."""
        self.at(value.name_line, value.name_column, message, hint, key=value.key)

    def text_error(self, value: Value, error: TextError) -> None:
        """Report an error that a parser found in the text of a value."""
        self.error(value, error.message, error.hint)

    def warn(self, value: Value, message: str, hint: str | None = None) -> None:
        """Warn about something that is accepted but probably not meant."""
        self.warnings.append(
            Problem(
                self.file, value.name_line, value.name_column, value.key, message, hint, self.via
            )
        )

    def ignored(self, value: Value, name: str, hint: str | None = None) -> None:
        """Warn about an unknown key that dora 1.x ignores, too."""
        self.warn(value, f"the unknown key `{shorten(name)}` is ignored", hint)
        self.warnings[-1] = replace(self.warnings[-1], ignored=True)

    def merge_key(self, value: Value) -> None:
        """Report a merge key (`<<`), which other YAML readers expand."""
        self.error_in_name(value, "merge keys are not part of YAML 1.2", "write the keys out")

    def unknown(self, value: Value, name: str, known: Iterable[str], what: str = "key") -> None:
        """Report an unknown name, with the nearest known one as the hint."""
        self.error_in_name(value, f"unknown {what} `{shorten(name)}`", hint_for(name, known))


def hint_for(name: str, known: Iterable[str]) -> str | None:
    """Return a hint with the nearest known name, or with all of them if there are few."""
    names = list(known)
    hint = did_you_mean(name, names)
    if hint is None and 0 < len(names) <= _MAX_LISTED:
        return f"known here: {', '.join(names)}"
    return hint


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems sorted by position; those in files of modules come last."""
    return tuple(
        sorted(
            problems,
            key=lambda problem: (
                problem.via != (),
                problem.file,
                problem.line,
                problem.column,
                problem.key,
            ),
        )
    )
