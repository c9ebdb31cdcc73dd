"""The problems of a dataflow file, and the error that carries all of them."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from dorad.problems import ProblemError
from dorad.terminal import visible


class Problem(Struct, frozen=True):
    """An error, an unsupported key or a warning at one position of a file."""

    file: str
    line: int
    """Counts from 1; 0 when the problem has no position (the file is missing)."""
    column: int
    """In characters, counts from 1; 0 when the problem has no position."""
    key: str
    """Path of the key, such as `nodes[2].inputs.image.queue_size`; empty for the whole file."""
    message: str
    hint: str | None = None
    via: tuple[str, ...] = ()
    """For a module's file: the nodes that name it, innermost first: "`nav` in flow.yml:4"."""
    ignored: bool = False
    """Whether this warns about an ignored key, which is an error with `--strict`."""

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        used = f"used by {', '.join(self.via)}" if self.via else None
        notes = "; ".join(note for note in (self.hint, used) if note)
        return visible(f"{location}{key}{self.message}" + (f" ({notes})" if notes else ""))


class TextError(ValueError):
    """The reason why a text is invalid; the caller adds the position and makes a Problem."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


class DataflowError(ProblemError):
    """A dataflow file that cannot be used; `str()` is one line per problem."""

    problems: tuple[Problem, ...]
    """Every problem found, in the order of the file."""

    def __init__(
        self, problems: Iterable[Problem], message: str = "the dataflow has errors"
    ) -> None:
        super().__init__("refused", message, problems=problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
