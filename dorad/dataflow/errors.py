"""What can be wrong with a dataflow file: one problem, and the error that carries all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.problems import ProblemError
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or unsupported, or worth a warning) at one place of a file."""

    file: str
    line: int
    """Counts from 1; 0 when the problem is not in the text (the file is missing)."""
    column: int
    """Characters, counts from 1; 0 when the problem is not in the text."""
    key: str
    """Path of the key, such as `nodes[2].inputs.image.queue_size`; empty for the whole file."""
    message: str
    hint: str | None = None
    via: tuple[str, ...] = ()
    """For a module's file, the nodes that led there, innermost first: "`nav` in flow.yml:4"."""
    ignored: bool = False
    """Whether this is a warning of a key that is ignored: an error for `--strict`."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        used = f"used by {', '.join(self.via)}" if self.via else None
        notes = "; ".join(note for note in (self.hint, used) if note)
        return visible(f"{place}{key}{self.message}" + (f" ({notes})" if notes else ""))


class TextError(ValueError):
    """Why one text of a dataflow is wrong; who knows its place turns it into a Problem."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


class DataflowError(ProblemError):
    """A dataflow file that cannot be used; `str()` is one line per problem."""

    problems: tuple[Problem, ...]
    """Every problem found, in the order of the file."""

    def __init__(
        self, problems: Iterable[Problem], message: str = "the dataflow is not in order"
    ) -> None:
        super().__init__("refused", message, problems=problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
