"""Lock the memory of this process, so that it never waits for a page to be fetched.

Nodes import this module: it uses only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4
CAP_IPC_LOCK = 14
_HINT = (
    "give it CAP_IPC_LOCK, or no limit: LimitMEMLOCK=infinity in the unit, "
    "or `@realtime - memlock unlimited` in /etc/security/limits.d"
)


def lock() -> str | None:
    """Lock present and future memory; return None, or one line that says what is missing.

    A page is locked when it is first touched: reserved address space (stacks of threads, the spare
    room of a mailbox) takes no memory. With a finite limit, only the present memory is locked,
    because a later allocation beyond the limit would fail.
    """
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != hard_limit:
        with contextlib.suppress(OSError, ValueError):  # forbidden by a sandbox
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard_limit, hard_limit))
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    free = limit == resource.RLIM_INFINITY or has_capability(CAP_IPC_LOCK)
    code = _mlockall(_MCL_CURRENT | _MCL_ONFAULT | (_MCL_FUTURE if free else 0))
    if code == 0 and free:
        return None
    problem = f"its limit is {limit >> 10} KiB" if not free else os.strerror(code)
    if code == 0:
        return f"lock_memory: only the present memory is locked: {problem}; {_HINT}"
    return f"lock_memory: the memory of the process is not locked: {problem}; {_HINT}"


def has_capability(number: int, pid: int | str = "self") -> bool:
    """Return True if a process has a capability (`number` as in linux/capability.h)."""
    for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _mlockall(flags: int) -> int:
    """Return 0 or an errno."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    return 0 if library.mlockall(flags) == 0 else ctypes.get_errno()
