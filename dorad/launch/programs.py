"""Find the program that a node's `path` names, and the Python that runs it.

The Python is the first of these that exists:

- that of the active virtual environment (`VIRTUAL_ENV` in the node's environment),
- that of the virtual environment in which dora itself is installed, because `.venv/bin/dora run`
  implies it even if it is not activated,
- `python3` or `python` on PATH.

The environment's `bin` comes first on the node's PATH, as if it were activated, so that
the commands installed in it are found too. A PATH that the user sets is not changed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow import gitsources
from dorad.dataflow.nearest import did_you_mean
from dorad.launch.model import LaunchError, NoFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.dataflow.model import Dataflow, NodeSpec


def folder_of(node: NodeSpec, dataflow: Dataflow) -> Path:
    """Return the folder of a node: what was fetched for its `git`, else that of the file.

    Raises:
        LaunchError: it cannot be read what was fetched.
    """
    try:
        return gitsources.folder_of(node, dataflow)
    except gitsources.GitSourceError as error:
        raise LaunchError(str(error)) from error


def own_environment() -> Path | None:
    """Return the `bin` folder of the virtual environment that dora runs from; None without one."""
    return Path(sys.executable).parent if sys.prefix != sys.base_prefix else None


def environment_bin(env: Mapping[str, str], own: Path | None) -> Path | None:
    """Return the `bin` folder of the virtual environment a node runs in, else `own`."""
    if active := env.get("VIRTUAL_ENV"):
        folder = Path(active, "bin")
        # The variable may be stale: an environment that was deleted must not hide the others.
        if Path(folder, "python").exists():
            return folder
    return own


def search_path(env: Mapping[str, str], first: Path | None) -> str:
    """Return PATH of `env` with the folder `first` in front, unless PATH contains it already."""
    path = env.get("PATH", os.defpath)
    if first is None or str(first) in path.split(os.pathsep):
        return path
    return f"{first}{os.pathsep}{path}" if path else str(first)


def activate_for_uv(env: dict[str, str], folder: Path, own: Path | None) -> None:
    """Activate dora's own environment in `env`, unless uv finds another one.

    uv uses VIRTUAL_ENV, or a project or a `.venv` in `folder` or above it. Without one of these it
    cannot install, and would run a Python that has no pyarrow.
    """
    if own is None or environment_bin(env, None) is not None:
        return
    for parent in (folder, *folder.parents):
        if (parent / ".venv").is_dir() or (parent / "pyproject.toml").is_file():
            return
    env["VIRTUAL_ENV"] = str(own.parent)
    env["PATH"] = search_path(env, own)


def find_python(bin_folder: Path | None, path: str) -> str:
    """Return the interpreter for Python nodes: that of `bin_folder`, else the first on `path`."""
    if bin_folder is not None:
        return str(bin_folder / "python")
    return shutil.which("python3", path=path) or shutil.which("python", path=path) or sys.executable


def find_program(name: str, working_dir: Path, path: str) -> Path:
    """Return the file that `name` means: in `working_dir`, else (a bare name) on `path`.

    The result is absolute. Symbolic links stay: the python of a virtual environment is one.

    Raises:
        LaunchError: no such file exists, or it is a folder or not executable, or its folder may
            not be entered.
    """
    here = working_dir / name
    check_open(here.parent)
    is_script = here.suffix == ".py"
    if here.is_file() and (is_script or os.access(here, os.X_OK)):
        if is_script and not os.access(here, os.R_OK):
            raise LaunchError(
                f"{here} may not be read by the user {os.geteuid()} (`chmod +r` permits it)"
            )
        return here
    if "/" not in name and (program := shutil.which(name, path=path)):
        return Path(program).absolute()
    if here.is_file():
        raise LaunchError(f"{here} is not executable (`chmod +x` makes it so)")
    if here.is_dir() and ("/" in name or is_script):
        raise LaunchError(f"{here} is a folder, not a program")
    raise NoFileError(_not_found(name, here, path))


def check_open(folder: Path) -> None:
    """Check that this process may enter a folder, if it exists.

    The service may not enter what belongs to one user alone, such as a home folder: it has uid 0
    without its capabilities, and runs nodes as a user of their own.

    Raises:
        LaunchError: it may not; the outermost such folder is named.
    """
    for each in (*reversed(folder.parents), folder):
        if os.access(each, os.X_OK):
            continue
        if each.is_dir():
            raise LaunchError(
                f"dorad may not enter the folder {each} (move the dataflow to a folder that all"
                " users may enter, such as one in /opt)"
            )
        return


def find_uv(path: str) -> str:
    """Return the `uv` command on `path`.

    Raises:
        LaunchError: PATH has no such command.
    """
    program = shutil.which("uv", path=path)
    if program is None:
        raise LaunchError("--uv needs the `uv` command, which is not on PATH")
    return program


def _not_found(name: str, here: Path, path: str) -> str:
    """Return a message with the name, where it was searched for, and the nearest existing name."""
    siblings = _names(here.parent)
    if advice := _without_arguments(name, path):
        return f"no file `{name}` in {here.parent} ({advice})"
    if "/" in name or here.suffix == ".py":
        where = f"no file `{here.name}` in {here.parent}"
        hint = did_you_mean(here.name, siblings)
        if here.is_symlink():
            where = f"{here} is a link to {here.readlink()}, which does not exist"
            hint = None
        elif name.startswith("~"):
            where = f"no file {here}: `~` is not expanded in a path"
            hint = f"write {Path(name).expanduser()}" if name.startswith("~/") else None
        elif not here.parent.is_dir():
            where = f"no file {here}: there is no folder {here.parent}"
    else:
        file = f"{here} is a folder" if here.is_dir() else f"no file of that name in {here.parent}"
        where = f"no command `{name}` on PATH and {file}"
        commands = (n for folder in path.split(os.pathsep) for n in _names(Path(folder)))
        # `name` itself may be a folder, or a file on PATH that is not executable.
        hint = did_you_mean(name, {*siblings, *commands} - {name})
    return f"{where} ({hint})" if hint else where


def _without_arguments(name: str, path: str) -> str | None:
    """Return the hint for a path that seems to be a command line."""
    first, *rest = name.split()
    if not rest:
        return None
    if Path(first).name.startswith("python"):
        first, *rest = rest
    if not first.endswith(".py") and shutil.which(first, path=path) is None:
        return None
    args = f" and `args: {' '.join(rest)}`" if rest else ""
    return f"a path holds no arguments: write `path: {first}`{args}"


def _names(folder: Path) -> Iterator[str]:
    try:
        for entry in folder.iterdir():
            yield entry.name
    except OSError:
        # Most PATHs contain folders that do not exist.
        return
