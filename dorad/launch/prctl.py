"""Settings of prctl(2): processes do not outlive their parent, and secrets stay in one."""

from __future__ import annotations

import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_DUMPABLE = 4


def set_subreaper(enabled: bool) -> None:
    """Make this process adopt, or no longer adopt, the orphans among its descendants.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, int(enabled))


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Make the kernel kill this process when `parent` dies, even after it executes a program.

    It sends the signal `number`.

    Raises:
        OSError: the kernel refuses, or `parent` has died already.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise ProcessLookupError


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one's memory and environment.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
