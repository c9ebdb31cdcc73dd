"""What /proc/PID/stat says of a process. Few imports: guard and keeper use it."""

from __future__ import annotations

import os


def fields(pid: int) -> list[bytes] | None:
    """Return the fields from the third (state) on; None if there is no such process."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # hidden from us: another user's
        return None
    try:
        text = os.read(file, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(file)
    # The second, the command's name, may contain anything, but is the only one with a `)`.
    return text[text.rindex(b")") + 1 :].split()


def start_time(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since boot; None if there is none.

    With its pid this tells a process from all others until the machine is started again.
    """
    found = fields(pid)
    return None if found is None else int(found[19])


def is_alive(pid: int, started: int | None = None) -> bool:
    """Tell whether a process runs (a zombie does not), and is the one started at `started`."""
    found = fields(pid)
    if found is None or found[0] in b"ZX":
        return False
    return started is None or int(found[19]) == started
