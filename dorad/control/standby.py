"""Why a coordinator does not lead, in a file of its folder: it answers nobody meanwhile."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STANDBY = "standby"
"""The file. A coordinator that runs holds a lock of it."""

MAX_REASON = 2000
"""Bytes of a reason."""


@contextmanager
def reporting(folder: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that stores why this coordinator does not lead; empty if it does.

    An error that ends the block is stored, too. Before the first report the file has the last one
    of the process before, which systemd has replaced by this one.

    Raises:
        OSError: the file cannot be written.
    """
    number = os.open(folder / STANDBY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def report(reason: str) -> None:
        os.ftruncate(number, 0)
        os.pwrite(number, reason.encode()[:MAX_REASON], 0)

    last = ""
    try:
        fcntl.flock(number, fcntl.LOCK_SH)
        yield report
    except ProblemError as error:
        last = str(error)
        raise
    finally:
        report(last)
        os.close(number)


def why_silent(folder: Path) -> str:
    """Return why the coordinator with this folder answers nobody; empty if that is not known."""
    try:
        number = os.open(folder / STANDBY, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""  # it only makes a message better
    try:
        reason = os.pread(number, MAX_REASON, 0).decode(errors="replace")
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = "has ended"
    except BlockingIOError:
        state = "waits to lead"
    finally:
        os.close(number)
    return reason and f"it {state}: {reason}"
