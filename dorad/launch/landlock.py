"""Landlock of the kernel: a process and its children cannot reach into processes outside of them.

Processes of one user may otherwise read each other's memory and variables, and signal each other.
Each call of `separate` makes a domain, which no later program leaves. Processes in it can read,
trace and signal those of their own domain only. Files are not restricted: one right over them has
to be named, and is granted everywhere.
"""

from __future__ import annotations

import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, which have these numbers on every architecture."""
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_REFER = 1 << 13
"""The right to move files between folders, which every domain that does not grant it lacks."""
_SCOPE_SIGNAL = 1 << 1

READING = 2
"""The version (Linux 5.19) from which on processes can be kept from reading each other. Version 1
keeps them from moving files between folders, too, so it is not used."""
SIGNALS = 6
"""The version (Linux 6.12) from which on they can be kept from signalling each other, too."""


def version() -> int:
    """Return the version of Landlock that the kernel offers; 0 if it has none."""
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def separate() -> bool:
    """Put this process into a new domain, if the kernel can; return whether it did.

    Only for a process of one thread that cannot gain privileges (NoNewPrivs).

    Raises:
        OSError: the kernel has Landlock and refuses.
    """
    offered = version()
    if offered < READING:
        return False
    scoped = _SCOPE_SIGNAL if offered >= SIGNALS else 0
    attributes = struct.pack("=QQQ", _REFER, 0, scoped)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", _REFER, root), 0)
        finally:
            os.close(root)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _call(number: int, *arguments: object) -> int:
    import ctypes

    result = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)
