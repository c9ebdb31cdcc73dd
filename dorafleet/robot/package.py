"""The Debian package that is to be installed, as its own control file describes it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.problems import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "dorad"
ANY = "all"
FIELDS = ("Package", "Version", "Architecture")
DPKG_S = 30.0


class PackageError(ProblemError):
    """A file that is not a package for robots; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


@dataclass(frozen=True, slots=True)
class Package:
    """A file that `apt-get install` takes."""

    path: Path
    version: str
    architecture: str
    """As dpkg names it: amd64, arm64, all."""
    size: int
    """Bytes of the file."""


def read_package(path: Path) -> Package:
    """Return what the package at `path` is. Raises PackageError unless it is one of dorad."""
    if shutil.which("dpkg-deb") is None:
        raise PackageError("dpkg-deb is needed to read a package; install dpkg")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from error
    done = subprocess.run(
        ["dpkg-deb", "--field", str(path.absolute()), *FIELDS],  # noqa: S607 (as PATH has it)
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DPKG_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason"]
        reason = said[-1].removeprefix("dpkg-deb: error: ")
        raise PackageError(f"{path} is no Debian package: {reason}")
    found = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    name = found.get("Package", "")
    if name != NAME:
        raise PackageError(f"{path} is the package {name}; robots get {NAME}")
    return Package(path, found.get("Version", ""), found.get("Architecture", ""), size)
