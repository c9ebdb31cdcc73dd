"""Boot one robot and stay until it is off: run in its own mount namespace, with its network.

`boot.py MACHINE CGROUP LOWER FOLDER` mounts the robot's disk and runs systemd-nspawn on it. Its
mounts end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REBOOT = 133
"""The exit code of systemd-nspawn after a reboot of the robot."""


def main(machine: str, cgroup: str, lower: str, folder: Path) -> int:
    """Run the robot until it is off; return systemd-nspawn's exit code."""
    # systemd inside wants a pure v2 tree; where v1 controllers are mounted too, this hides them.
    _run("umount", "-R", "/sys/fs/cgroup")
    _run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    home = Path("/sys/fs/cgroup", cgroup)
    home.mkdir(parents=True, exist_ok=True)
    (home / "cgroup.procs").write_text(str(os.getpid()))
    Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
    layers = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, f"{folder}/root")
    command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={folder}/root"]
    identity = (folder / "upper/etc/machine-id").read_text().strip()
    command += [f"--machine={machine}", f"--uuid={identity}"]
    # IPC_LOCK also lifts nspawn's filter on mlock; SYS_NICE is for SCHED_FIFO, with any policy.
    command += ["--capability=CAP_IPC_LOCK,CAP_NET_ADMIN,CAP_SYS_NICE"]
    command += ["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"]
    command += ["--timezone=off", "--kill-signal=SIGRTMIN+3"]
    # The robot's own /proc/sys/net may be written: sysctl.d sets it.
    environment = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
    while True:
        code = subprocess.run(command, env=environment, check=False).returncode
        if code != REBOOT:
            return code
        remove_cgroup(home / "payload")


def remove_cgroup(top: Path) -> None:
    """Remove a tree of cgroups without processes, if it is there."""
    for folder, _, _ in os.walk(top, topdown=False):
        Path(folder).rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
