"""Wheels for a release, and pip for the machine that builds it, from the package index."""

import hashlib
import sys
from pathlib import Path

from hwtests.robots import Robot
from hwtests.robots.shell import run

FOLDER = "/root/wheels"
LOCK = "/root/lock.txt"
PURE, PURE_VERSION = "tomli-w", "1.2.0"
NUMPY = "2.2.6"
"""Another version than that of dorad's own environment."""
PIP = """\
#!/bin/sh
PYTHONPATH=$(echo /root/pip/pip-*.whl) exec python3 -m pip "$@"
"""


def download(folder: Path, python: str) -> list[Path]:
    """Return the wheels of the lock for a Python such as `3.13` on this architecture."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--python-version={python}"]
    run([*command, f"--dest={folder}", f"{PURE}=={PURE_VERSION}", f"numpy=={NUMPY}"], timeout=300)
    return sorted(folder.glob("*.whl"))


def prepare(server: Robot, folder: Path) -> None:
    """Give a machine a lock with a pure package and numpy, their wheels, and pip."""
    python = server.exec("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    wheels = download(folder / "wheels", python.strip())
    for wheel in wheels:
        server.push(wheel, f"{FOLDER}/{wheel.name}")
    digests = {each.name.split("-")[0]: _sha256(each) for each in wheels}
    server.write(
        LOCK,
        f"{PURE}=={PURE_VERSION} --hash=sha256:{digests['tomli_w']}\n"
        f"numpy=={NUMPY} --hash=sha256:{digests['numpy']}\n",
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run([*command, "--disable-pip-version-check", f"--dest={folder}/pip", "pip"], timeout=300)
    (pip,) = (folder / "pip").glob("*.whl")
    server.push(pip, f"/root/pip/{pip.name}")
    server.write("/usr/local/bin/pip3", PIP)
    server.exec("chmod", "+x", "/usr/local/bin/pip3")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
