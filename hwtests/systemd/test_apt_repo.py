"""A robot installs dorad from the repository of `make apt-repo`, and refuses a changed package."""

import subprocess
from pathlib import Path

from hwtests.robots import Robot, Testbed
from hwtests.robots.fixtures import PROJECT

SOURCES = "/etc/apt/sources.list.d"
KEYRING = "/usr/share/keyrings/dorad.gpg"
FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(1_000_000)
    byte = file.read(1)[0]
    file.seek(1_000_000)
    file.write(bytes([byte ^ 1]))
"""
"""Changes one bit of a file."""


def push_tree(robot: Robot, folder: Path, target: str) -> None:
    """Copy a folder into the robot."""
    for file in folder.rglob("*"):
        if file.is_file():
            robot.push(file, f"{target}/{file.relative_to(folder)}")


def test_a_robot_installs_from_the_repository_and_refuses_a_changed_package(
    bed: Testbed, deb: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / deb.name).symlink_to(deb)
    made = tmp_path / "apt"
    subprocess.run([PROJECT / "packaging/apt-repo.sh", packages, made], check=True)
    (robot,) = bed.up(1)
    push_tree(robot, made, "/srv/apt")
    robot.sh(f"rm -rf /etc/apt/sources.list {SOURCES}/*")  # what it depends on is installed
    sources = (made / "dorad.sources").read_text()
    sources = sources.replace("https://packages.example.org/dorad", "file:/srv/apt")
    robot.write(f"{SOURCES}/dorad.sources", sources)

    unknown = robot.attempt("apt-get", "-q", "update", timeout=120)
    assert unknown.returncode != 0
    assert "is not signed" in unknown.stderr

    robot.push(made / "dorad.gpg", KEYRING)
    robot.exec("apt-get", "-q", "update", timeout=120)
    package = f"/srv/apt/pool/{deb.name}"
    robot.exec("python3", "-c", FLIP, package)
    install = ("apt-get", "-q", "install", "-y", "dorad")
    refused = robot.attempt(*install, timeout=300)
    assert refused.returncode != 0
    assert "Hash Sum mismatch" in refused.stderr
    assert robot.attempt("which", "dora").returncode != 0

    robot.exec("python3", "-c", FLIP, package)
    robot.exec(*install, timeout=300)
    assert robot.exec("dora", "--version").splitlines()[-1] == "data plane: native"
