"""Giving up, in the running process, whatever it does not need: before it handles foreign data."""

from __future__ import annotations

import ctypes
import os
import resource
import site
import stat
import struct
import sys

NOBODY = 65534
"""User and group that root becomes; no file is theirs."""
CAP_DAC_READ_SEARCH = 2

_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "armv7l": 185, "armv6l": 185}
"""The number of the system call `capset`, which the C library has no name for."""
_CAPABILITY_VERSION = 0x20080522
_MAX_CAPABILITIES = 64
_MAX_FILES = 1024


def confine() -> None:
    """Become nobody if this is root, drop all capabilities for good, and write no core file.

    Where others cannot read the code, as below /root, root keeps the right to read. Root that may
    not change its user, as in a sandbox, stays uid 0 without capabilities.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    for capability in range(_MAX_CAPABILITIES):
        # Those that the kernel does not know, or that are gone already, are refused.
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
        # Effective, permitted, inheritable: of the first 32 capabilities, then of the others.
        _check(library.syscall(number, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))
    _check(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MAX_FILES if most == resource.RLIM_INFINITY else min(_MAX_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _has_capabilities() -> bool:
    """Return whether this process may use any: one without may be forbidden to give them up."""
    # As bytes: decoding would import a module, which may be out of reach just now.
    with open("/proc/self/status", "rb") as status:  # noqa: PTH123
        return any(line.startswith(b"CapPrm:") and int(line.split()[1], 16) for line in status)


def _readable_by_all() -> bool:
    """Return whether every user can read the interpreter and what it imports."""
    places = [os.path.realpath(sys.executable), os.__file__, __file__, *site.getsitepackages()]
    return all(map(_is_readable, places))


def _is_readable(place: str) -> bool:
    try:
        if not os.stat(place).st_mode & stat.S_IROTH:  # noqa: PTH116 - before pathlib is imported
            return False
        while (folder := os.path.dirname(place)) != place:  # noqa: PTH120
            if not os.stat(folder).st_mode & stat.S_IXOTH:  # noqa: PTH116
                return False
            place = folder
    except OSError:
        return False
    return True


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
