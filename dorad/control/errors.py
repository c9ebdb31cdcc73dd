"""The one exception of the control API: a code for programs, sentences for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control.messages import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.messages import ErrorCode


class ControlError(Exception):
    """Why a request was not answered; handlers raise it in the daemon, the client raises it too.

    `str()` is the message, and the hint in brackets after it.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        hint: str | None = None,
        problems: Iterable[str] = (),
    ) -> None:
        super().__init__(code, message)
        self.code: ErrorCode = code
        self.message = message
        """What went wrong, in one line."""
        self.hint = hint
        """What to do about it, in one line."""
        self.problems = list(problems)
        """For a dataflow that is not in order: one line for each problem."""

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"

    @classmethod
    def of(cls, error: Error) -> ControlError:
        """Return the exception that an error in a reply stands for."""
        return cls(error.code, error.message, error.hint, error.problems)

    def as_message(self) -> Error:
        """Return what a reply says of this exception."""
        return Error(code=self.code, message=self.message, hint=self.hint, problems=self.problems)


class NoDaemonError(ControlError):
    """Nobody listens in the places where a daemon would; its code is `unavailable`."""
