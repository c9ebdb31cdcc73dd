"""The error of a command on a running dataflow."""

from __future__ import annotations

from typing import Literal

from dorad.problems import ProblemError

Code = Literal["not-found", "exists", "busy", "refused", "deadline"]


class CommandError(ProblemError):
    """A command that cannot be carried out now."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(code, message, hint)
