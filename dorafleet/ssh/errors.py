"""The error of a connection, with a code for programs and a hint for users."""

from enum import StrEnum

from dorad.problems import ProblemError

MAX_MESSAGE = 1000
"""Maximum characters of a message, because messages quote robots, which may print anything."""


class Code(StrEnum):
    """The kind of an error."""

    UNREACHABLE = "unreachable"
    """No connection to sshd: unknown name, no network, or no server at the port."""
    HOST_KEY_UNKNOWN = "host_key_unknown"
    HOST_KEY_CHANGED = "host_key_changed"
    DENIED = "denied"
    """sshd refuses the user, or sudo requires a password."""
    CONFIG = "config"
    """The operator's own files in ~/.ssh are not valid."""
    LOST = "lost"
    """The connection ended during an operation."""
    TIMEOUT = "timeout"
    """A command took too long."""
    TOO_MUCH_OUTPUT = "too_much_output"
    FAILED = "failed"
    """A command on the robot failed."""
    REFUSED = "refused"
    """The operation does not fit the robot; nothing was changed."""
    UNEXPECTED = "unexpected"
    """A bug in dorafleet."""

    @property
    def is_after_login(self) -> bool:
        """True if the robot was reached and the user logged in, or that is unknown."""
        return self not in (
            Code.UNREACHABLE,
            Code.HOST_KEY_UNKNOWN,
            Code.HOST_KEY_CHANGED,
            Code.DENIED,
            Code.CONFIG,
        )


class SshError(ProblemError):
    """An error on one robot; the others are not affected."""

    code: Code

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        shown = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
        super().__init__(code, shown, hint)
