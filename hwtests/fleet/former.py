"""The packages of the release before this one, built from the history of this repository."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from hwtests.robots.shell import attempt, run

PROJECT = Path(__file__).parents[2]
COMMIT = "040eb48ece45030c2c25e4b0e5d6d4f6b20a6521"
"""What this version must work with. It has the packets of nodes, the frames of links, the manifests
of releases and the stores of the version before. With each release, take the tag of the one before.
"""
VERSION = "0.1.0~former"


class Former(NamedTuple):
    """Both packages."""

    robot: Path
    fleet: Path


def build(folder: Path) -> Former:
    """Build the packages once, in minutes, and keep them in build/former. Skip without history."""
    kept = PROJECT / "build/former" / COMMIT[:12]
    if not kept.is_dir():
        git = ["git", "-C", str(PROJECT)]
        if attempt([*git, "cat-file", "-e", COMMIT]).returncode:
            pytest.skip(f"the history of this repository is needed: git fetch origin {COMMIT}")
        archive = folder / "former.tar"
        run([*git, "archive", f"--output={archive}", COMMIT])
        tree = folder / "tree"
        tree.mkdir()
        run(["tar", "-x", "-C", str(tree), "-f", str(archive)])
        subprocess.run([tree / "packaging/deb.sh", VERSION], check=True, stdout=subprocess.DEVNULL)
        kept.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-r", str(tree / "dist"), f"{kept}.new"])
        Path(f"{kept}.new").rename(kept)
    (robot,) = kept.glob("dorad_*.deb")
    (fleet,) = kept.glob("dorafleet_*.deb")
    return Former(robot, fleet)
