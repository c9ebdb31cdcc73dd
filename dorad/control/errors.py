"""Errors of the control API, and the form in which they travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

from dorad.control.messages import Error, ErrorCode
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

_CODES = frozenset(get_args(ErrorCode))


class ControlError(ProblemError):
    """A request that was not answered; the daemon's handlers and the client raise it."""

    code: ErrorCode
    problems: list[str]

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        hint: str | None = None,
        problems: Iterable[str] = (),
    ) -> None:
        super().__init__(code, message, hint)
        self.problems = list(problems)

    @classmethod
    def of(cls, error: Error) -> ControlError:
        """Return the exception for an error in a reply."""
        return cls(error.code, error.message, error.hint, error.problems)


class NoDaemonError(ControlError):
    """No daemon listens at any of the usual sockets; its code is `unavailable`."""


def as_message(error: ProblemError) -> Error:
    """Return the form of `error` in a reply; a code that the API does not have is `internal`."""
    code = cast("ErrorCode", error.code) if error.code in _CODES else "internal"
    problems = [str(problem) for problem in error.problems]
    return Error(code=code, message=error.message, hint=error.hint, problems=problems)
