"""Where the two machines of a measurement are: both on loopback, or each in a network namespace."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hwtests.bench.process import MeasurementError


class Network(NamedTuple):
    """How the machines `one` and `two` reach each other."""

    name: str
    one: str
    """The address of machine one."""
    two: str
    enter_one: tuple[str, ...] = ()
    """What precedes each command of machine one."""
    enter_two: tuple[str, ...] = ()


OWN_MEMORY = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh")
"""What precedes a command that gets its own /dev/shm, as each machine has one. Over a common
one, dora 1.1.0 would pass messages through the shared memory of Zenoh, not through the network."""

LOOPBACK = Network("loopback", "127.0.0.1", "127.0.0.1")


def free_port() -> int:
    """Return a port that no process of loopback listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def has_namespaces() -> bool:
    """Return True if this process can make network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def namespaces() -> Iterator[Network]:
    """Two network namespaces, joined by a pair of virtual cables.

    Raises:
        MeasurementError: they cannot be made.
    """
    names = [f"dora-link-{os.getpid()}-{name}" for name in ("one", "two")]
    hosts = ("10.219.77.1", "10.219.77.2")
    enter = [("ip", "netns", "exec", name, *OWN_MEMORY) for name in names]
    try:
        for name in names:
            _ip("netns", "add", name)
        pair = [f"{name[:1]}{os.getpid()}{end}" for name, end in zip(names, "ab", strict=True)]
        _ip("link", "add", pair[0], "type", "veth", "peer", "name", pair[1])
        for cable, name, host in zip(pair, names, hosts, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"{host}/24", "dev", cable)
            _ip("-n", name, "link", "set", cable, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield Network("namespaces", *hosts, *enter)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise MeasurementError(f"ip {' '.join(words)}: {done.stderr.strip()}")
