"""Turn the errno of a failed start into a message that names the cause and the fix."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.launch.holder import wire
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from dorad.launch.model import Command


def spawn_error(command: Command, stage: str, number: int) -> LaunchError:
    """Return the error for a start of `command` that failed at `stage` (see `wire`) with `number`.

    `number` is an errno.
    """
    program = command.argv[0]
    if stage == wire.STAGE_FOLDER:
        why = f"its working directory {command.cwd}: {os.strerror(number)}"
    elif number == errno.ENOENT and Path(command.cwd, program).exists():
        why = f"the interpreter it names does not exist{_named_interpreter(program)}"
    elif number == errno.ENOEXEC:
        why = "it is neither a program for this machine nor a script with a #! line"
    elif number == errno.EACCES:
        why = "permission denied (is it executable? `chmod +x` makes it so)"
    elif number == errno.E2BIG:
        why = "its arguments and environment are too long"
    else:
        why = os.strerror(number)
    return LaunchError(f"cannot start {program}: {why}")


def _named_interpreter(program: str) -> str:
    try:
        with Path(program).open("rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    if not first.startswith(b"#!"):
        return " (its dynamic loader is missing)"
    line = first.decode(errors="replace").strip()
    if first.endswith(b"\r\n"):
        return f" (`{line}` ends with a carriage return, as on Windows: mend it with `dos2unix`)"
    return f" (first line: {line})"
