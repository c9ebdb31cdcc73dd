"""Errors of the control API, and their form in a reply."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast, get_args

from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.messages import Error, ErrorCode

MAX_LINE = 4000
"""Characters of a message, a hint, or a problem."""

MAX_PROBLEMS = 1000


@functools.cache
def _codes() -> frozenset[str]:
    """Return the codes that the API knows."""
    from dorad.control.messages import ErrorCode  # `dora run` needs no message

    return frozenset(get_args(ErrorCode))


class ControlError(ProblemError):
    """A failed request. The daemon's handlers and the client raise it."""

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
        """Return the exception for an error in a reply; its texts are cut to their limits.

        A code that this version does not know becomes `refused`.
        """
        code = cast("ErrorCode", error.code) if error.code in _codes() else "refused"
        problems = [line[:MAX_LINE] for line in error.problems[:MAX_PROBLEMS]]
        hint = None if error.hint is None else error.hint[:MAX_LINE]
        return cls(code, error.message[:MAX_LINE], hint, problems)


class NoDaemonError(ControlError):
    """No daemon listens at any of the searched sockets; the code is `unavailable`."""


def as_message(error: ProblemError) -> Error:
    """Return `error` in the form of a reply; a code unknown to the API becomes `internal`."""
    from dorad.control.messages import Error

    code = cast("ErrorCode", error.code) if error.code in _codes() else "internal"
    problems = [str(problem) for problem in error.problems]
    return Error(code=code, message=error.message, hint=error.hint, problems=problems)
