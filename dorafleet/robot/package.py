"""The Debian package to install, as its control file describes it."""

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
DPKG_TIMEOUT_S = 30.0


class PackageError(ProblemError):
    """The file is not a package for robots; the message gives the reason."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message)


@dataclass(frozen=True, slots=True)
class Package:
    """A package file."""

    path: Path
    version: str
    architecture: str
    """As dpkg names it: amd64, arm64, all."""
    size: int
    """The size of the file in bytes."""


def read_package(path: Path) -> Package:
    """Return the package at `path`. Raises PackageError if it is not the package dorad."""
    program = shutil.which("dpkg-deb")
    if program is None:
        raise PackageError("dpkg-deb is needed to read a package; install dpkg")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from error
    done = subprocess.run(
        [program, "--field", str(path.absolute()), *FIELDS],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DPKG_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        reason = lines[-1].removeprefix("dpkg-deb: error: ")
        raise PackageError(f"{path} is not a Debian package: {reason}")
    fields = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    name = fields.get("Package", "")
    if name != NAME:
        raise PackageError(f"{path} is the package {name}; robots get {NAME}")
    return Package(path, fields.get("Version", ""), fields.get("Architecture", ""), size)
