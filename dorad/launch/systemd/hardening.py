"""The sandbox of units: of nodes, and the stricter one of helpers."""

from __future__ import annotations

import errno
from typing import Any

Properties = list[tuple[str, str, Any]]
"""Name, D-Bus signature and value of each property."""

_ROOTS = ("", "root", "0")
_FAMILIES = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_CAN", "AF_BLUETOOTH"]
_NETWORK = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]
_TASKS = 128
_NETWORK_TASKS = 1152
"""A link process has a thread for each machine that is slow to take its messages."""
_KERNEL_CALLS = [
    "@cpu-emulation",
    "@module",
    "@mount",
    "@obsolete",
    "@raw-io",
    "@reboot",
    "@swap",
]
_OTHERS_CALLS = ["kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"]
"""Calls that read or change other processes."""
_OURS = ["-/run/dorad", "-/run/dbus", "-/etc/dorad", "-/var/lib/dorad", "-/dev/shm"]


def is_root(user: str) -> bool:
    """Return True if a unit with this user runs as root."""
    return user in _ROOTS


def of_node(user: str, capabilities: int) -> Properties:
    """Return the sandbox of a node that runs as `user` with these capabilities (a mask).

    A node keeps access to devices, network, files, /sys and the folders in /tmp. It sees only
    processes of its own user in /proc. A node that the configuration runs as root keeps the rights
    of root.
    """
    properties: Properties = [
        ("NoNewPrivileges", "b", True),
        ("LockPersonality", "b", True),
        ("KeyringMode", "s", "private"),
    ]
    if is_root(user):
        return properties
    return [
        *properties,
        ("CapabilityBoundingSet", "t", capabilities),
        ("ProtectHostname", "b", True),
        ("ProtectProc", "s", "invisible"),
        ("RestrictSUIDSGID", "b", True),
        ("RestrictNamespaces", "t", 0),
        ("RestrictAddressFamilies", "(bas)", [True, _FAMILIES]),
        ("SystemCallArchitectures", "as", ["native"]),
        ("SystemCallFilter", "(bas)", [False, [*_KERNEL_CALLS, *_OTHERS_CALLS]]),
        ("SystemCallErrorNumber", "i", errno.EPERM),
    ]


def of_helper(*, code_in_home: bool, network: bool) -> Properties:
    """Return the sandbox of a helper: its own user, two descriptors, and its code.

    With `code_in_home` it may read below /home and /root, where a development tree may be.
    """
    return [
        ("DynamicUser", "b", True),
        ("NoNewPrivileges", "b", True),
        ("CapabilityBoundingSet", "t", 0),
        ("AmbientCapabilities", "t", 0),
        ("ProtectSystem", "s", "strict"),
        ("ProtectHome", "s", "read-only" if code_in_home else "yes"),
        ("InaccessiblePaths", "as", _OURS),
        ("PrivateTmp", "b", True),
        ("PrivateDevices", "b", True),
        ("PrivateNetwork", "b", not network),
        ("PrivateIPC", "b", True),
        ("PrivateUsers", "b", True),
        ("ProtectClock", "b", True),
        ("ProtectControlGroups", "b", True),
        ("ProtectHostname", "b", True),
        ("ProtectKernelLogs", "b", True),
        ("ProtectKernelModules", "b", True),
        ("ProtectKernelTunables", "b", True),
        ("ProtectProc", "s", "invisible"),
        ("KeyringMode", "s", "private"),
        ("LockPersonality", "b", True),
        ("MemoryDenyWriteExecute", "b", True),
        ("RestrictAddressFamilies", "(bas)", [True, _NETWORK if network else []]),
        ("RestrictNamespaces", "t", 0),
        ("RestrictRealtime", "b", True),
        ("RestrictSUIDSGID", "b", True),
        ("SystemCallArchitectures", "as", ["native"]),
        ("SystemCallFilter", "(bas)", [True, ["@system-service"]]),
        ("SystemCallFilter", "(bas)", [False, ["@privileged", "@resources"]]),
        ("SystemCallErrorNumber", "i", errno.EPERM),
        ("UMask", "u", 0o077),
        ("LimitCORE", "t", 0),
        ("TasksMax", "t", _NETWORK_TASKS if network else _TASKS),
        ("OOMScoreAdjust", "i", 500),
    ]
