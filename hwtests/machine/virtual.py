"""Virtual machines: QEMU without hardware virtualisation, so they run everywhere.

They have a Debian kernel and root file system, which are built once and kept in FOLDER; what they
write to the disk with it is thrown away.
"""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from hwtests.robots import host, rootfs
from hwtests.robots.errors import RobotError
from hwtests.robots.shell import attempt, run, wait_until

FOLDER = host.FOLDER / "machine"
MORE = ("openssh-server", "udev", "linux-image-cloud-amd64")
BOOT_S = float(os.environ.get("VM_BOOT_S", "300"))
"""Until a machine is up; more on a host that does other work."""
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
}
NETWORK = "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n"
START, SECTORS, DISK_ID = 2048, 8 << 20, 0x646F7261
"""The one partition of a disk in sectors of 512 bytes, and the number of the disk, by which the
kernel finds the partition: disks have their names in the order in which they answer.
"""
TO_DISK = f"""
mount -t overlay overlay -o "lowerdir=$1" "$2"
truncate -s {(START + SECTORS) * 512} "$3"
mke2fs -q -t ext4 -E offset={START * 512} -d "$2" "$3" {SECTORS // 2}k
"""


def missing() -> str:
    """Return the packages that have to be installed for this, or an empty string."""
    return " ".join(sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)}))


def prepare(deb: Path, disk: Path, folder: Path) -> None:
    """Make the disk of machines that have a package installed; `folder` is an empty one.

    The first time, this builds kernel, root file system and key, too: two minutes more.
    """
    layer = folder / "layer"
    lower = rootfs.preinstall(str(_root()), deb, layer)
    mounted = folder / "mounted"
    mounted.mkdir()
    command = ["unshare", "--mount", "--propagation=private", "sh", "-euc", TO_DISK, "sh"]
    run([*command, lower, str(mounted), str(disk)], timeout=600)
    shutil.rmtree(layer)
    with disk.open("r+b") as file:
        file.seek(440)
        partition = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", START, SECTORS)
        file.write(struct.pack("<IH16s48sH", DISK_ID, 0, partition, b"", 0xAA55))


def _root() -> Path:
    root = rootfs.build(FOLDER, MORE)
    if (FOLDER / "key").exists():
        return root
    keys = root / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    (root / "etc/hostname").write_text("robot\n")
    (root / "etc/systemd/network/all.network").write_text(NETWORK)
    run(["systemctl", f"--root={root}", "-q", "enable", "systemd-networkd"])
    run(["systemctl", f"--root={root}", "-q", "mask", "systemd-networkd-wait-online.service"])
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(FOLDER / "new")])
    (keys / "authorized_keys").write_text((FOLDER / "new.pub").read_text())
    (FOLDER / "new").rename(FOLDER / "key")
    return root


def qemu(disk: Path, *more: str, data: str = "", append: str = "") -> list[str]:
    """Return the command that boots a machine from a disk, and leaves the disk unchanged.

    `data` describes the drive of a second disk; `more` are further arguments, and `append` those
    of the kernel. It knows NVMe and ext4 by itself, so it needs no initramfs.
    """
    (kernel,) = (_root() / "boot").glob("vmlinuz-*")
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024"]
    command += ["-nodefaults", "-no-reboot", "-display", "none", "-kernel", str(kernel)]
    arguments = (
        f"root=PARTUUID={DISK_ID:08x}-01 rootwait rw console=ttyS0 quiet mitigations=off {append}"
    )
    command += ["-append", arguments.strip(), "-device", "nvme,id=disks,serial=disks"]
    for name, drive in (("root", f"file={disk},snapshot=on"), ("data", data)):
        if drive:
            command += ["-drive", f"{drive},if=none,format=raw,id={name}"]
            command += ["-device", f"nvme-ns,bus=disks,drive={name}"]
    return [*command, *more]


class Machine:
    """A running machine with systemd, and no network but `ssh` from this machine.

    A context manager that removes it.
    """

    def __init__(self, disk: Path) -> None:
        """Use a disk that `prepare` has made."""
        self._disk = disk
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot, and wait until systemd has finished."""
        console = FOLDER / "console.log"
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        network = ("-netdev", forward, "-device", "virtio-net-pci,netdev=net")
        command = qemu(self._disk, *network, "-smp", "2", "-serial", f"file:{console}")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            wait_until(self._booted, f"it is up, see {console}", timeout=BOOT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the machine."""
        self.stop()

    def sh(self, script: str, *, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run a shell script inside as root and return what it printed. Raises RobotError."""
        return run([*self._ssh(), script], stdin=stdin, timeout=timeout)

    def push(self, source: Path, target: str) -> None:
        """Copy a file into it; its folder is made."""
        script = f'mkdir -p "$(dirname {target})" && cat >{target}'
        self.sh(script, stdin=source.read_bytes(), timeout=300)

    def stop(self) -> None:
        """Cut its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ssh(self) -> Sequence[str]:
        options = (
            "BatchMode=yes",
            "ConnectTimeout=5",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
            "UserKnownHostsFile=/dev/null",
        )
        words = ["ssh", "-i", str(FOLDER / "key"), "-p", str(self._port)]
        for option in options:
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
