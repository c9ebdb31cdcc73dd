"""Collects what is wrong with one file while it is read, so that all of it is told at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dorad.dataflow.document import shorten
from dorad.dataflow.errors import Problem, TextError
from dorad.dataflow.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.dataflow.document import Value

_MAX_LISTED = 16


class Problems:
    """The errors and warnings of one file; of a module's file with the nodes that led there."""

    def __init__(self, file: str, via: tuple[str, ...] = ()) -> None:
        self.file = file
        self.via = via
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def at(
        self, line: int, column: int, message: str, hint: str | None = None, *, key: str = ""
    ) -> None:
        """An error at a place that belongs to no value."""
        self.errors.append(Problem(self.file, line, column, key, message, hint, self.via))

    def error(self, value: Value, message: str, hint: str | None = None) -> None:
        """An error in what a value says."""
        self.at(value.line, value.column, message, hint, key=value.key)

    def error_in_name(self, value: Value, message: str, hint: str | None = None) -> None:
        """An error in the name before a value, or in its being there."""
        self.at(value.name_line, value.name_column, message, hint, key=value.key)

    def text_error(self, value: Value, error: TextError) -> None:
        """An error that a parser of texts found in a value."""
        self.error(value, error.message, error.hint)

    def warn(self, value: Value, message: str, hint: str | None = None) -> None:
        """Something that is accepted but will not do what it seems to say."""
        self.warnings.append(
            Problem(
                self.file, value.name_line, value.name_column, value.key, message, hint, self.via
            )
        )

    def ignored(self, value: Value, name: str, hint: str | None = None) -> None:
        """A key that does not exist where it stands, and that dora 1.x ignores there, too."""
        self.warn(value, f"the unknown key `{shorten(name)}` is ignored", hint)
        self.warnings[-1] = replace(self.warnings[-1], ignored=True)

    def merge_key(self, value: Value) -> None:
        """A `<<`, which other YAML readers replace by what it names."""
        self.error_in_name(value, "merge keys are not part of YAML 1.2", "write the keys out")

    def unknown(self, value: Value, name: str, known: Iterable[str], what: str = "key") -> None:
        """A name that does not exist where it stands; says the nearest one that does."""
        self.error_in_name(value, f"unknown {what} `{shorten(name)}`", hint_for(name, known))


def hint_for(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the names that are known where `name` stands, or all if they are few."""
    names = list(known)
    hint = did_you_mean(name, names)
    if hint is None and 0 < len(names) <= _MAX_LISTED:
        return f"known here: {', '.join(names)}"
    return hint


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By their place in the file; those in the files of modules come last."""
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
