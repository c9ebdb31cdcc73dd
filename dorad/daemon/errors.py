"""Why a command on a running dataflow was not carried out."""

from __future__ import annotations

from typing import Literal

Code = Literal["not-found", "exists", "busy", "refused", "deadline"]


class CommandError(Exception):
    """A command that cannot be carried out now; `str()` is one sentence for the user."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        """What programs go by."""
        self.hint = hint
        """What to do."""
