"""The words before a command: become what is wanted, give the right to it away, be the command.

For what starts processes without knowing the policy; see `units.prefix`. What is refused is one
line on stderr, and the command runs without.
"""

from __future__ import annotations

import os
import sys

from dorad.realtime.schedule import Schedule, set_policy

_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


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
    """A program that is executed by another user than root has no capability left then."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
