"""Requirements of robots on this machine, and their places on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hwtests.robots.errors import RobotError

FOLDER = Path(os.environ.get("DORAD_ROBOTS", "/var/tmp/dorad-robots"))
"""Holds the root file system, which is kept, and the disks of robots, which are not."""

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""Commands, and the Debian packages that have them."""

PROBE = """
exec 2>&1
mount -t tmpfs tmpfs /tmp
cd /tmp
mkdir lower upper work root
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root
mount -t proc proc root
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$1"
rmdir "/sys/fs/cgroup/$1"
ip link add one type veth peer name other
ip link add br0 type bridge
"""
"""Kernel features that robots use, each tried once in namespaces that end with this."""


def missing() -> str:
    """Return why robots cannot run here and the fix, or an empty string."""
    if os.geteuid() != 0:
        return "robots need root"
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if packages:
        return f"robots need tools: apt-get install {' '.join(packages)}"
    try:
        cgroup2()
    except RobotError as error:
        return str(error)
    return _refused()


@cache
def _refused() -> str:
    """Return what root is not permitted here, as in an unprivileged container."""
    namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--net", "--ipc", "--uts"]
    done = subprocess.run(
        [*namespaces, "--fork", "--kill-child", "sh", "-ec", PROBE, "sh", f"probe-{os.getpid()}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return f"robots cannot be on this machine: {output[-1]}" if done.returncode else ""


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process is in such a block: for what all test runs share."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cgroup2() -> Path:
    """Return where the cgroup v2 tree is mounted, alone or beside v1 controllers."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RobotError("robots need a cgroup2 mount")
