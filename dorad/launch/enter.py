"""A program that does for a command what systemd cannot, and executes it.

It separates the command from other processes of its user (see `landlock`), and sets the policy
`deadline`, after which it drops the right to do so. If the kernel refuses, one line on stderr
reports it, and the command runs without it.
"""

from __future__ import annotations

import os
import sys

from dorad.realtime.schedule import SCHED_DEADLINE, Schedule, set_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CODE = "import sys; sys.path.insert(0, {!r}); from dorad.launch.enter import main; main()"
_SEPARATE = "separate"
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_LOWER = 3
_SIGPIPE, _SIGXFSZ = 13, 25
NOT_EXECUTED = 203
"""The exit code that systemd uses, too, for a program that cannot be executed."""


def wrap_command(
    wanted: Schedule | None, argv: Sequence[str], *, separate: bool = False
) -> list[str]:
    """Return `argv`, preceded by this program if there is something for it to do.

    The kernel grants the policy `deadline` only with CAP_SYS_NICE, which the command does not keep.
    Variables of the command's environment have no effect here.
    """
    deadline = wanted if wanted is not None and wanted.policy == SCHED_DEADLINE else None
    if deadline is None and not separate:
        return list(argv)
    code = _CODE.format(__file__.removesuffix("/dorad/launch/enter.py"))
    numbers = ",".join(map(str, deadline.numbers())) if deadline else ""
    first = [sys.executable, "-I", "-S", "-c", code]
    return [*first, _SEPARATE if separate else "", numbers, *argv]


def main() -> None:
    """Execute the command in `sys.argv`, which follows what is to be done before."""
    separate, numbers, *command = sys.argv[1:]
    if numbers:
        _set_deadline(numbers)
    if separate:
        _separate()
    _restore_signals()
    try:
        os.execve(command[0], command, _environment())
    except OSError as error:
        print(
            f"cannot execute {command[0]}: {error.strerror} (is it a program of this machine, may "
            "the node's user read it, and does the interpreter in its first line exist?)",
            file=sys.stderr,
        )
        raise SystemExit(NOT_EXECUTED) from None


def _restore_signals() -> None:
    """Let signals that Python ignores end a process again: a command would go on ignoring them."""
    import ctypes

    # The module `signal` takes as long to import as all else here.
    for number in (_SIGPIPE, _SIGXFSZ):
        ctypes.CDLL(None).signal(number, None)


def _environment() -> dict[bytes, bytes]:
    """Return the variables that this process was started with: Python may add LC_CTYPE."""
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        lines = [line.partition(b"=") for line in file.read().split(b"\0")]
    return {name: value for name, equals, value in lines if equals}


def _separate() -> None:
    from dorad.launch import landlock

    try:
        landlock.separate()
    except OSError as error:
        print(
            f"isolation: other nodes of this user can be read from here: {error.strerror}",
            file=sys.stderr,
        )


def _set_deadline(numbers: str) -> None:
    wanted = Schedule(*map(int, numbers.split(",")))
    try:
        set_policy(wanted)
    except OSError as error:
        from dorad.realtime.refusal import policy_refused, rights

        limit, nice = rights()
        print(policy_refused(wanted, error.errno or 0, limit, nice=nice), file=sys.stderr)
    _drop_rights()


def _drop_rights() -> None:
    """Drop CAP_SYS_NICE for the program that is executed next, unless the user is root."""
    import ctypes

    from dorad.realtime.refusal import CAP_SYS_NICE

    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_LOWER, CAP_SYS_NICE, 0, 0)
