"""Drop the privileges of the running process before it handles data of unknown origin."""

from __future__ import annotations

import ctypes
import os
import resource
import site
import stat
import struct
import sys

NOBODY = 65534
"""User and group that root switches to; they own no file."""
CAP_DAC_READ_SEARCH = 2

_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "armv7l": 185, "armv6l": 185}
"""Number of the system call `capset`, for which the C library has no function."""
_CAPABILITY_VERSION = 0x20080522
_MAX_CAPABILITIES = 64
MAX_FILES = 1024


def confine(max_files: int = MAX_FILES) -> None:
    """Switch from root to NOBODY, drop all capabilities permanently, and disable core files.

    The process gets at most `max_files` descriptors.

    If other users cannot read the code (below /root, say), root keeps CAP_DAC_READ_SEARCH. If root
    may not change its user (in a sandbox), it stays uid 0 without capabilities.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    for capability in range(_MAX_CAPABILITIES):
        # Ignore the result: the kernel refuses unknown and already dropped capabilities.
        library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    kept = 0
    if os.geteuid() == 0:
        kept = 0 if _readable_by_all() else 1 << CAP_DAC_READ_SEARCH
        _check(library.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except PermissionError:
            kept = 0
    library.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    number = _CAPSET.get(os.uname().machine)
    if number is not None and _has_capabilities():
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        # Effective, permitted, inheritable: for the first 32 capabilities, then for the others.
        _check(library.syscall(number, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))
    _check(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max_files if limit == resource.RLIM_INFINITY else min(max_files, limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _has_capabilities() -> bool:
    """Return True if this process has any. Without any, `capset` itself may be forbidden."""
    # As bytes: decoding would import a module, which may be unreadable by now.
    with open("/proc/self/status", "rb") as status:
        return any(line.startswith(b"CapPrm:") and int(line.split()[1], 16) for line in status)


def _readable_by_all() -> bool:
    """Return True if every user can read the interpreter and what it imports."""
    paths = [os.path.realpath(sys.executable), os.__file__, __file__, *site.getsitepackages()]
    return all(map(_is_readable, paths))


def _is_readable(path: str) -> bool:
    try:
        if not os.stat(path).st_mode & stat.S_IROTH:
            return False
        while (folder := os.path.dirname(path)) != path:
            if not os.stat(folder).st_mode & stat.S_IXOTH:
                return False
            path = folder
    except OSError:
        return False
    return True


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
