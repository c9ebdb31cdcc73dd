"""The words before a command: become what is wanted, give the right to it away, be the command.

For units of systemd, which knows no policy `deadline`. What is refused is one line on stderr, and
the command runs without.
"""

from __future__ import annotations

import os
import sys

from dorad.realtime.schedule import SCHED_DEADLINE, Schedule, set_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CODE = "import sys; sys.path.insert(0, {!r}); from dorad.realtime.enter import main; main()"
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_LOWER = 3


def entering(wanted: Schedule | None, argv: Sequence[str]) -> list[str]:
    """Return `argv`, with the words before it that a policy `deadline` needs.

    The kernel gives that to who has CAP_SYS_NICE; it is taken from the command. Nothing of the
    environment that the command will have matters here.
    """
    if wanted is None or wanted.policy != SCHED_DEADLINE:
        return list(argv)
    code = _CODE.format(__file__.removesuffix("/dorad/realtime/enter.py"))
    numbers = ",".join(map(str, wanted.numbers()))
    return [sys.executable, "-I", "-S", "-c", code, numbers, *argv]


def main() -> None:
    """Execute the command in `sys.argv`, after the schedule's numbers with commas between.

    Raises:
        OSError: the command cannot be executed.
    """
    numbers, *command = sys.argv[1:]
    wanted = Schedule(*map(int, numbers.split(",")))
    try:
        set_policy(wanted)
    except OSError as error:
        from dorad.realtime.refusal import policy_refused, rights

        limit, nice = rights()
        print(policy_refused(wanted, error.errno or 0, limit, nice=nice), file=sys.stderr)
    _drop_rights()
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


def _drop_rights() -> None:
    """A program that is executed by another user than root does not have CAP_SYS_NICE then."""
    import ctypes

    from dorad.realtime.refusal import CAP_SYS_NICE

    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_LOWER, CAP_SYS_NICE, 0, 0)
