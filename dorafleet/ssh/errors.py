"""The one error of a connection, with a code for programs and a hint for people."""

from __future__ import annotations

from enum import StrEnum

from dorad.problems import ProblemError

MAX_MESSAGE = 1000
"""Characters: messages quote robots, which may say anything."""


class Code(StrEnum):
    """What kind of thing went wrong."""

    UNREACHABLE = "unreachable"
    """No connection to sshd: the name, the network, or nobody listens."""
    HOST_KEY_UNKNOWN = "host_key_unknown"
    HOST_KEY_CHANGED = "host_key_changed"
    DENIED = "denied"
    """sshd lets the user not in, or sudo asks for a password."""
    CONFIG = "config"
    """The operator's own files below ~/.ssh."""
    LOST = "lost"
    """The connection ended in the middle of something."""
    TIMEOUT = "timeout"
    """A command took longer than it may."""
    TOO_MUCH_OUTPUT = "too_much_output"
    FAILED = "failed"
    """A command there ended with an error."""
    REFUSED = "refused"
    """What was asked for does not fit the robot, and nothing was done."""
    UNEXPECTED = "unexpected"
    """An error that nothing here foresaw."""

    @property
    def is_from_there(self) -> bool:
        """Whether the robot was reached and its user logged in."""
        return self in (
            Code.LOST,
            Code.TIMEOUT,
            Code.TOO_MUCH_OUTPUT,
            Code.FAILED,
            Code.REFUSED,
        )


class SshError(ProblemError):
    """Something that failed on one robot; the others are not affected."""

    code: Code

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        shown = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
        super().__init__(code, shown, hint)
