"""A program that sets the policy `deadline`, drops the right to do so, and executes a command.

For systemd units, because systemd does not support that policy. If the kernel refuses it, one line
on stderr reports it, and the command runs without it.
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


def wrap_command(wanted: Schedule | None, argv: Sequence[str]) -> list[str]:
    """Return `argv`, preceded by this program if the policy is `deadline`.

    The kernel grants that policy only with CAP_SYS_NICE, which the command does not keep. Variables
    of the command's environment have no effect here.
    """
    if wanted is None or wanted.policy != SCHED_DEADLINE:
        return list(argv)
    code = _CODE.format(__file__.removesuffix("/dorad/realtime/enter.py"))
    numbers = ",".join(map(str, wanted.numbers()))
    return [sys.executable, "-I", "-S", "-c", code, numbers, *argv]


def main() -> None:
    """Execute the command in `sys.argv`, which follows the schedule as comma-separated numbers.

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
    os.execv(command[0], command)


def _drop_rights() -> None:
    """Drop CAP_SYS_NICE for the program that is executed next, unless the user is root."""
    import ctypes

    from dorad.realtime.refusal import CAP_SYS_NICE

    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_LOWER, CAP_SYS_NICE, 0, 0)
