"""A robot as a virtual machine: QEMU without hardware virtualisation, so it runs everywhere.

It has a Debian kernel and root file system, which are built once and kept in FOLDER; its disk is a
copy. It has no network but `ssh` from this machine. A second disk can be added whose content is
that of a machine without power once the machine is killed: it has what the guest has written, and
nothing of the guest's page cache.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Self

from hwtests.robots import host
from hwtests.robots.errors import RobotError
from hwtests.robots.rootfs import PACKAGES, RELEASE, SOURCES
from hwtests.robots.shell import attempt, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

FOLDER = host.FOLDER / "machine"
MORE = ("openssh-server", "udev", "initramfs-tools", "zstd", "linux-image-cloud-amd64")
BOOT_S = float(os.environ.get("VM_BOOT_S", "300"))
"""Until a machine is up; more on a host that does other work."""
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
}
NETWORK = "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n"


def missing() -> str:
    """Return the packages that have to be installed for this, or an empty string."""
    return " ".join(sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)}))


def build() -> None:
    """Build kernel, disk and key unless they exist; takes two minutes."""
    if (FOLDER / "complete").exists():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    root = FOLDER / "root"
    root.parent.mkdir(parents=True)
    packages = ",".join((*PACKAGES, *MORE))
    sources = [str(SOURCES)] if SOURCES.is_file() else []
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}"]
    run([*command, RELEASE, str(root), *sources], timeout=900)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(FOLDER / "key")])
    keys = root / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "authorized_keys").write_text((FOLDER / "key.pub").read_text())
    (root / "etc/hostname").write_text("robot\n")
    (root / "etc/systemd/network/all.network").write_text(NETWORK)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    run(["systemctl", f"--root={root}", "-q", "enable", "systemd-networkd"])
    masked = ["apt-daily.timer", "apt-daily-upgrade.timer", "systemd-networkd-wait-online.service"]
    run(["systemctl", f"--root={root}", "-q", "mask", *masked])
    for name in ("vmlinuz", "initrd.img"):
        (found,) = (root / "boot").glob(f"{name}-*")
        shutil.copy(found, FOLDER / name)
    disk = FOLDER / "disk.img"
    run(["truncate", "-s", "4G", str(disk)])
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk)], timeout=300)
    shutil.rmtree(root)
    (FOLDER / "complete").touch()


class Machine:
    """A running machine. A context manager that removes it."""

    def __init__(self, prepared: Path | None = None, data: Path | None = None) -> None:
        """Use the disk `prepared`, and leave it unchanged; else a new one. `data` is a second one,
        `/dev/vdb`.
        """
        self._prepared = prepared
        self._data = data
        self._disk = FOLDER / f"running-{os.getpid()}.img"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot, and wait until systemd has finished."""
        drive = f"file={self._prepared},snapshot=on"
        if self._prepared is None:
            run(["cp", "--sparse=always", str(FOLDER / "disk.img"), str(self._disk)], timeout=120)
            drive = f"file={self._disk},cache=unsafe"
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"]
        command += ["-nographic", "-nodefaults", "-serial", f"file:{FOLDER / 'console.log'}"]
        command += ["-kernel", str(FOLDER / "vmlinuz"), "-initrd", str(FOLDER / "initrd.img")]
        command += ["-append", "root=/dev/vda rw console=ttyS0 quiet mitigations=off"]
        command += ["-drive", f"{drive},format=raw,if=virtio"]
        if self._data is not None:
            command += ["-drive", f"file={self._data},format=raw,if=virtio,cache=none"]
        command += ["-netdev", forward, "-device", "virtio-net-pci,netdev=net"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            wait_until(self._booted, f"it is up, see {FOLDER / 'console.log'}", timeout=BOOT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the machine."""
        self.stop()

    def sh(self, script: str, *, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run a shell script inside as root and return what it printed. Raises RobotError."""
        return run([*self._ssh(), script], stdin=stdin, timeout=timeout)

    def push(self, source: Path, target: str) -> None:
        """Copy a file into it; its folder is made."""
        script = f'mkdir -p "$(dirname {target})" && cat >{target}'
        self.sh(script, stdin=source.read_bytes(), timeout=300)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a shell script inside as root; its output can be read line by line."""
        return subprocess.Popen([*self._ssh(), script], stdout=subprocess.PIPE, text=True)

    def keep(self, target: Path) -> None:
        """Shut it down, and move its disk to `target`."""
        attempt([*self._ssh(), "systemctl poweroff"], timeout=60)
        assert self._process is not None
        self._process.wait(BOOT_S)
        shutil.move(self._disk, target)

    def stop(self) -> None:
        """Cut its power, and remove its disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._disk.unlink(missing_ok=True)

    def _ssh(self) -> list[str]:
        options = (
            "BatchMode=yes",
            "ConnectTimeout=5",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
        )
        words = ["ssh", "-i", str(FOLDER / "key"), "-p", str(self._port)]
        for option in (*options, "LogLevel=ERROR", "UserKnownHostsFile=/dev/null"):
            words += ["-o", option]
        return [*words, "root@127.0.0.1"]

    def _booted(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RobotError(f"QEMU has ended with exit code {self._process.returncode}")
        command = [*self._ssh(), "systemctl is-system-running --wait"]
        return attempt(command, timeout=BOOT_S).stdout.strip() == "running"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
