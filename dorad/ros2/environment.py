"""Find the ROS 2 installation of a bridge, its variables, and the Python that can import rclpy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.ros2.definitions import PREFIX_PATH, Definitions

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

DISTRIBUTIONS = Path("/opt/ros")
SOURCE_TIMEOUT_S = 30.0

_INSTALL = "install one (apt install ros-jazzy-ros-base) or name it with `setup`"
_PRINT = 'source "$1" >/dev/null && env -0'
_PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""The second is the former name of the first: the only one in Jazzy, and deprecated in Kilted."""
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


class SetupError(Exception):
    """There is no ROS 2 that can be used; the text says why, in one line, and what helps."""


class NotInstalledError(SetupError):
    """There is no ROS 2 at all."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A file to source, or a virtual environment; without either, the variables are set already."""

    file: Path | None = None
    python: Path | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python of a ROS 2 installation, and the variables of a process in it."""

    python: str
    version: str
    """`3.12`."""
    variables: Mapping[str, str]


def use_profile(variables: MutableMapping[str, str]) -> None:
    """Give Fast DDS shared memory for large messages, unless the user has a profile."""
    if any(map(variables.get, _PROFILES)):
        return
    # The package had another name, too.
    prefixes = filter(None, variables.get(PREFIX_PATH, "").split(os.pathsep))
    is_former = any((Path(prefix) / "share/fastrtps").is_dir() for prefix in prefixes)
    variables[_PROFILES[is_former]] = str(Path(__file__).with_name("fastdds.xml"))


def choose(
    setup: str | None,
    folder: Path,
    environ: Mapping[str, str],
    distributions: Path = DISTRIBUTIONS,
) -> Setup:
    """Return the installation that `setup` names, relative to `folder`, else the only one there is.

    Without `setup` it is that of the variables, that of /opt/ros, or the one beside dora.

    Raises:
        SetupError: there is none, or more than one.
    """
    if setup is not None:
        return _named(folder / Path(setup).expanduser(), setup)
    if environ.get(PREFIX_PATH):
        return Setup()
    setups = sorted(distributions.glob("*/setup.bash"))
    if len(setups) > 1:
        names = ", ".join(str(each.parent) for each in setups)
        raise SetupError(f"there are several ROS 2 installations: name one of {names} with `setup`")
    if setups:
        return Setup(setups[0])
    if find_spec("rclpy") is not None:
        return Setup(python=Path(sys.executable))
    raise NotInstalledError(f"there is no ROS 2 on this machine: {_INSTALL}")


def _named(path: Path, written: str) -> Setup:
    if path.is_file():
        return Setup(path)
    if (path / "bin" / "python").exists():
        return Setup(python=path / "bin" / "python")
    if (path / "setup.bash").is_file():
        return Setup(path / "setup.bash")
    if path.is_dir():
        raise SetupError(f"`setup: {written}`: {path} has no setup.bash and no bin/python")
    raise SetupError(f"`setup: {written}`: there is no {path}")


def enter(setup: Setup, environ: Mapping[str, str]) -> Environment:
    """Return the environment of a setup; sources its file. Raises SetupError."""
    if setup.python is not None:
        return _virtual(setup.python, environ)
    variables = dict(environ) if setup.file is None else _sourced(setup.file, environ)
    version = _version(variables)
    if version == _OWN:
        return Environment(sys.executable, version, variables)
    python = shutil.which(f"python{version}", path=variables.get("PATH"))
    if python is None:
        raise SetupError(f"rclpy is for Python {version}, which is not on PATH")
    return Environment(python, version, variables)


def installed(setup: str | None, folder: Path, environ: Mapping[str, str]) -> Definitions:
    """Return the types of an installation, which `choose` finds; sources its file.

    It needs no rclpy. Raises SetupError.
    """
    chosen = choose(setup, folder, environ)
    if chosen.python is not None:
        prefix = str(chosen.python.parent.parent)
        return Definitions.of({PREFIX_PATH: _joined(prefix, environ.get(PREFIX_PATH))})
    return Definitions.of(environ if chosen.file is None else _sourced(chosen.file, environ))


def _virtual(python: Path, environ: Mapping[str, str]) -> Environment:
    prefix = python.parent.parent
    packages = sorted(prefix.glob("lib/python3.*/site-packages/rclpy"))
    if not packages:
        raise SetupError(f"{prefix} has no rclpy: `{python} -m pip install ros-rclpy`")
    variables = {**environ, "VIRTUAL_ENV": str(prefix)}
    variables[PREFIX_PATH] = _joined(str(prefix), environ.get(PREFIX_PATH))
    variables["PATH"] = _joined(str(python.parent), environ.get("PATH"))
    return Environment(str(python), _version_of(packages[0]), variables)


def _joined(first: str, rest: str | None) -> str:
    return os.pathsep.join([first, *([rest] if rest else [])])


def _sourced(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    command = ["bash", "--norc", "-c", _PRINT, "bash", str(file)]
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SOURCE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{file} cannot be sourced: {error}") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SetupError(f"{file} cannot be sourced: {last or f'exit code {done.returncode}'}")
    pairs = (
        each.partition("=") for each in done.stdout.decode(errors="surrogateescape").split("\0")
    )
    return {name: value for name, value_is_set, value in pairs if value_is_set}


def _version(variables: Mapping[str, str]) -> str:
    """Return the version of Python that rclpy is built for."""
    for prefix in filter(None, variables.get(PREFIX_PATH, "").split(os.pathsep)):
        for folder in sorted(Path(prefix).glob("lib/python3.*/site-packages/rclpy")):
            return _version_of(folder)
        # Debian's layout.
        for folder in sorted(Path(prefix).glob("local/lib/python3.*/dist-packages/rclpy")):
            return _version_of(folder)
    raise SetupError(f"{PREFIX_PATH} has no rclpy: apt install ros-DISTRO-rclpy")


def _version_of(rclpy: Path) -> str:
    version = re.fullmatch(r"python(3\.\d+)", rclpy.parts[-3])
    assert version is not None, rclpy
    return version[1]
