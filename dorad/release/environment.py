"""The Python environment of a release: a virtual environment made of links, without pip.

Its own packages come first. Then come those of dorad's own environment (pyarrow, numpy), so that a
release need not bring them.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.release.manifest import PTH, environment_path, own_files, site_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.release.manifest import Environment, File, Manifest

BASE = Path(getattr(sys, "_base_executable", "") or sys.executable)
"""The interpreter outside of any virtual environment."""


def environment_files(manifest: Manifest, environment: Environment) -> Iterator[tuple[str, File]]:
    """Yield the files of an environment, each with its path in it."""
    for index in environment.packages:
        for file in manifest.packages[index].files:
            yield environment_path(file.path, environment.target.python), file


def write_environment(folder: Path, python: str) -> None:
    """Write what makes `folder` an environment: its configuration and its interpreter.

    Raises:
        OSError: it cannot be written.
    """
    site = folder / site_packages(python)
    for each in (folder / "bin", site):
        each.mkdir(parents=True, exist_ok=True)
    configuration = folder / "pyvenv.cfg"
    configuration.write_text(
        f"home = {BASE.parent}\ninclude-system-site-packages = false\n"
        f"version = {sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}\n"
    )
    configuration.chmod(0o444)
    for path in own_files(python):
        if path.startswith("bin/"):
            (folder / path).symlink_to(BASE)
    pth = site / PTH
    pth.write_text("".join(f"{path}\n" for path in _own_packages()))
    pth.chmod(0o444)


def _own_packages() -> list[str]:
    """Return the folders with the packages of the environment that dorad runs in."""
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return [path for path in dict.fromkeys(paths) if Path(path).is_dir()]
