"""Finding what a node's `path` names, and the Python that runs it.

Which Python: that of the active virtual environment (`VIRTUAL_ENV` in the node's environment);
else, when dora itself is installed in a virtual environment that nobody activated, that one,
because `.venv/bin/dora run` says which environment is meant; else `python3` or `python` on PATH.
The environment's `bin` comes first on the node's PATH, as if it were activated, so that
the commands installed in it are found too.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.nearest import did_you_mean
from dorad.launch.model import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def own_environment() -> Path | None:
    """The `bin` folder of the virtual environment that dora runs from, if it runs from one."""
    return Path(sys.executable).parent if sys.prefix != sys.base_prefix else None


def environment_bin(env: Mapping[str, str], own: Path | None) -> Path | None:
    """The `bin` folder of the virtual environment a node runs in; `own` as `own_environment`."""
    if active := env.get("VIRTUAL_ENV"):
        folder = Path(active, "bin")
        # A stale variable of an environment that was deleted must not hide the rest.
        if Path(folder, "python").exists():
            return folder
    return own


def search_path(env: Mapping[str, str], first: Path | None) -> str:
    """PATH of `env` with the folder `first` in front, unless it is in it already."""
    path = env.get("PATH", os.defpath)
    if first is None or str(first) in path.split(os.pathsep):
        return path
    return f"{first}{os.pathsep}{path}" if path else str(first)


def activate_for_uv(env: dict[str, str], folder: Path, own: Path | None) -> None:
    """Activate dora's own environment in `env`, unless uv finds another one.

    uv takes that of VIRTUAL_ENV, of a project or of a `.venv` in `folder` or above it. Without any,
    it cannot install, and would run a Python that has no pyarrow.
    """
    if own is None or environment_bin(env, None) is not None:
        return
    for place in (folder, *folder.parents):
        if (place / ".venv").is_dir() or (place / "pyproject.toml").is_file():
            return
    env["VIRTUAL_ENV"] = str(own.parent)
    env["PATH"] = search_path(env, own)


def find_python(bin_folder: Path | None, path: str) -> str:
    """The interpreter for Python nodes: of `bin_folder` if given, else the first on `path`."""
    if bin_folder is not None:
        return str(bin_folder / "python")
    return shutil.which("python3", path=path) or shutil.which("python", path=path) or sys.executable


def find_program(name: str, working_dir: Path, path: str) -> Path:
    """The file that `name` means: in `working_dir`, else (a bare name) on `path`.

    Absolute, with symbolic links unresolved: a virtual environment's python is one.

    Raises:
        LaunchError: there is no such file, or it is a folder or not executable.
    """
    here = working_dir / name
    is_script = here.suffix == ".py"
    if here.is_file() and (is_script or os.access(here, os.X_OK)):
        return here
    if "/" not in name and (found := shutil.which(name, path=path)):
        return Path(found).absolute()
    if here.is_file():
        raise LaunchError(f"{here} is not executable (`chmod +x` makes it so)")
    if here.is_dir() and "/" in name:
        raise LaunchError(f"{here} is a folder, not a program")
    raise LaunchError(_not_found(name, here, path))


def find_uv(path: str) -> str:
    """The `uv` command on `path`.

    Raises:
        LaunchError: there is none.
    """
    found = shutil.which("uv", path=path)
    if found is None:
        raise LaunchError("--uv needs the `uv` command, which is not on PATH")
    return found


def _not_found(name: str, here: Path, path: str) -> str:
    """What was looked for, where, and what is there that it may have meant."""
    siblings = _names(here.parent)
    if "/" in name or here.suffix == ".py":
        where = f"no file `{here.name}` in {here.parent}"
        hint = did_you_mean(here.name, siblings)
        if not here.parent.is_dir():
            where = f"no file {here}: there is no folder {here.parent}"
    else:
        where = f"no command `{name}` on PATH and no file of that name in {here.parent}"
        commands = (n for folder in path.split(os.pathsep) for n in _names(Path(folder)))
        hint = did_you_mean(name, [*siblings, *commands])
    return f"{where} ({hint})" if hint else where


def _names(folder: Path) -> Iterator[str]:
    try:
        for entry in folder.iterdir():
            yield entry.name
    except OSError:
        # Most PATHs name folders that do not exist; there is nothing to suggest from them.
        return
