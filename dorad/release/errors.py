"""The error of a release that is refused, incomplete or damaged."""

from __future__ import annotations

from typing import Literal

from dorad.problems import ProblemError

Code = Literal[
    "manifest",
    "signer",
    "machine",
    "sequence",
    "space",
    "missing",
    "damaged",
    "busy",
    "protocol",
]

REFUSALS = frozenset({"manifest", "signer", "machine", "sequence", "space"})


class ReleaseError(ProblemError):
    """A release cannot be used. Nothing that runs was changed.

    `manifest`: not a valid manifest. `signer`: the signature is wrong, or its key unknown, revoked
    or expired. `machine`: not for this machine. `sequence`: older than what was confirmed. `space`:
    the disk is too small. `missing`: files have not arrived. `damaged`: a file had other content;
    it was removed and has to arrive again. `busy`: another process uses the folder. `protocol`: the
    other end of a transfer does not keep to it.
    """

    code: Code

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(code, message, hint)

    @property
    def refused(self) -> bool:
        """Whether trying again cannot help until something is changed."""
        return self.code in REFUSALS
