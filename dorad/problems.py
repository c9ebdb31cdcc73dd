"""The base of every error that is reported to the user as lines, never as a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class ProblemError(Exception):
    """Something that the user can mend; `str()` is the message, with the hint in brackets."""

    problems: Sequence[object]
    """One for each mistake in a file; `str()` of one is its line. Empty for a single problem."""

    def __init__(
        self, code: str, message: str, hint: str | None = None, problems: Iterable[object] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        """The kind of problem, for programs."""
        self.message = message
        """What went wrong, in one line."""
        self.hint = hint
        """What to do about it, in one line."""
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"

    @property
    def lines(self) -> list[str]:
        """What to show: a line for each problem, or the one line of `str()`."""
        return [str(problem) for problem in self.problems] or [str(self)]
