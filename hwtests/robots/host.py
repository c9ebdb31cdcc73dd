"""What the machine must have for robots, and where things are on it."""

from __future__ import annotations

import os
import shutil
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


def missing() -> str:
    """Return why there can be no robots here and what to do, or an empty string."""
    if os.geteuid() != 0:
        return "robots need root"
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if packages:
        return f"robots need tools: apt-get install {' '.join(packages)}"
    try:
        cgroup2()
    except RobotError as error:
        return str(error)
    return ""


def cgroup2() -> Path:
    """Return where the cgroup v2 tree is mounted, be it alone or beside v1 controllers."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RobotError("robots need a cgroup2 mount")
