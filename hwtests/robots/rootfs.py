"""The root file system that all robots share, and layers over it with packages installed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwtests.robots.shell import run

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "iproute2",
    "procps",
    "iputils-ping",
    "libstdc++6",
)
WITH_SSH = ("openssh-server", "openssh-client", "sudo")
"""What robots have besides, if they are reached as those of a fleet are."""
RELEASE = "trixie"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
"""Sources of this machine's packages, used for robots too."""

INSTALL = """
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
cp "$5" "$4/tmp/baked.deb"
chroot "$4" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
    LC_ALL=C.UTF-8 apt-get -qq install -y --no-install-recommends /tmp/baked.deb
rm "$4/tmp/baked.deb"
touch "$4/etc/.updated" "$4/var/.updated"
"""


def build(folder: Path, more: Sequence[str] = ()) -> Path:
    """Return a Debian root file system; made once for these packages, about 20 s, then kept.

    It has no machine-id, a journal that outlives a power cut, and nothing that calls out.
    """
    packages = ",".join((*PACKAGES, *more))
    key = hashlib.sha256(packages.encode()).hexdigest()[:12]
    root = folder / f"rootfs-{key}"
    if root.is_dir():
        return root
    making = folder / f"making-{key}"
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}"]
    run([*command, RELEASE, str(making), *_sources()], timeout=600)
    (making / "etc/machine-id").write_text("")
    (making / "etc/resolv.conf").unlink(missing_ok=True)
    (making / "var/log/journal").mkdir(exist_ok=True)
    masked = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"]
    run(["systemctl", f"--root={making}", "-q", "mask", *masked, "console-getty.service"])
    for mark in ("etc/.updated", "var/.updated"):
        (making / mark).touch()
    return making.rename(root)


def preinstall(lower: str, deb: Path, layer: Path) -> str:
    """Install a package over `lower` into a new layer; return both as an overlay's lowerdir.

    Nothing is fetched: what the package depends on has to be in the root file system.
    """
    parts = [layer / name for name in ("upper", "work", "root")]
    for part in parts:
        part.mkdir(parents=True)
    namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--net", "--fork"]
    places = [lower, *map(str, parts), str(deb)]
    run([*namespaces, "--kill-child", "sh", "-c", INSTALL, "sh", *places], timeout=300)
    return f"{parts[0]}:{lower}"


def newer(
    deb: Path, version: str, folder: Path, changed: Mapping[str, tuple[str, str]] | None = None
) -> Path:
    """Return a copy of a package with another version number, for upgrades.

    `changed` has modules of it by their paths below `dorad`, each with a text and what replaces it.
    """
    tree = folder / f"repack-{version}"
    run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], timeout=120)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text(
        "".join(f"Version: {version}\n" if line.startswith("Version:") else line for line in lines)
    )
    for name, (old, new) in (changed or {}).items():
        (module,) = tree.glob(f"usr/lib/dorad/lib/python3.*/site-packages/dorad/{name}")
        text = module.read_text()
        assert old in text
        module.write_text(text.replace(old, new))
        compiling = ["/usr/bin/python3", "-m", "compileall", "-q", "-f"]
        run([*compiling, "--invalidation-mode=unchecked-hash", "-s", str(tree), str(module)])
    target = folder / f"dorad_{version}_{run(['dpkg', '--print-architecture']).strip()}.deb"
    run(["dpkg-deb", "-Zgzip", "-z1", "--build", str(tree), str(target)], timeout=120)
    shutil.rmtree(tree)
    return target


def _sources() -> list[str]:
    return [str(SOURCES)] if SOURCES.is_file() else []
