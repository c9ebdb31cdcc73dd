"""The end of a process that has nothing left to do."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def exit_at_once(code: int) -> "NoReturn":
    """Exit without shutting down the interpreter, which takes longer than most commands.

    Exit handlers do not run: clean up in `with` blocks instead.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the reader has closed it: report nothing
        code = code or 1
    os._exit(code)
