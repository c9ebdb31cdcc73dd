"""Read a lock of Python packages, and choose its wheels for one target.

`pylock.toml` (its specification is at packaging.python.org), or requirements with hashes as
pip-compile and `uv export` write them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from packaging.pylock import (
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

from dorad.boundedfile import read_bounded
from dorafleet.release.errors import BuildError

MAX_LOCK = 16 << 20
"""Bytes of a lock."""

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from packaging.markers import Environment, Marker

    from dorad.release.manifest import Target

OLDEST_GLIBC = 5
_OLD_NAMES = (("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5))
_HASH = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package in one version."""

    name: str
    version: str
    sha256: tuple[str, ...]
    """Of the wheels that will do."""

    def line(self) -> str:
        """Return it as a line of requirements."""
        hashes = " ".join(f"--hash=sha256:{each}" for each in self.sha256)
        return f"{self.name}=={self.version} {hashes}"


class Lock:
    """The pins of a file."""

    def __init__(self, path: Path) -> None:
        """Read a file. Raises BuildError if it is not a lock with hashes."""
        self.path = path
        self._pylock: Pylock | None = None
        self._requirements: list[tuple[Requirement, tuple[str, ...]]] = []
        try:
            text = read_bounded(path, MAX_LOCK, pipes=True).decode()
        except OSError as error:
            raise BuildError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BuildError(f"{path} is not text in UTF-8") from error
        if path.suffix == ".toml":
            self._pylock = _pylock(path, text)
        else:
            self._requirements = list(_requirements(path, text))

    def pins(self, target: Target) -> list[Pin]:
        """Return the packages for a target, sorted by name.

        Raises:
            BuildError: a package has no wheel for it.
        """
        if self._pylock is not None:
            selected = list(_selected(self.path, self._pylock, target))
        else:
            environment = _environment(target)
            selected = [
                Pin(canonicalize_name(each.name), _version(each), hashes)
                for each, hashes in self._requirements
                if _holds(each.marker, environment)
            ]
        return sorted(selected, key=lambda pin: pin.name)


def platforms(target: Target) -> list[str]:
    """Return the platform tags that a target supports, the most specific first."""
    newest = int(target.glibc.partition(".")[2] or OLDEST_GLIBC)
    tags = []
    for minor in range(newest, OLDEST_GLIBC - 1, -1):
        tags.append(f"manylinux_2_{minor}_{target.arch}")
        tags += [f"{name}_{target.arch}" for name, old in _OLD_NAMES if old == minor]
    return [*tags, f"linux_{target.arch}"]


def _pylock(path: Path, text: str) -> Pylock:
    try:
        return Pylock.from_dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, PylockValidationError) as error:
        message = f"{path} is not a valid pylock.toml: {error}"
        raise BuildError(message, "uv export --format pylock.toml, or pip lock") from error


def _selected(path: Path, pylock: Pylock, target: Target) -> Iterator[Pin]:
    version = _numbers(target)
    tags = [
        *cpython_tags(version, platforms=platforms(target)),
        *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms(target)),
    ]
    try:
        for package, source in pylock.select(environment=_environment(target), tags=tags):
            if not isinstance(source, PackageWheel):
                raise _no_wheel(path, package.name, str(package.version), target)
            digest = source.hashes.get("sha256")
            if digest is None:
                message = f"{path}: the wheel {source.filename} has no sha256"
                raise BuildError(message, "lock it again")
            yield Pin(package.name, str(package.version or ""), (digest,))
    except PylockSelectError as error:
        raise BuildError(f"{path} does not fit {target}: {error}") from error


def _requirements(path: Path, text: str) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    joined = re.sub(r"\\\r?\n", " ", text)
    for number, line in enumerate(joined.splitlines(), 1):
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        if not content:
            continue
        wanted = content.split(" --", 1)[0].strip()
        if wanted.startswith("-"):
            message = f"{path}: `{wanted[:60]}` is not supported in a lock"
            raise BuildError(message, "only lines with a version and hashes")
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement as error:
            raise BuildError(f"{path}: line {number}: {error}") from error
        hashes = tuple(_HASH.findall(content))
        if not hashes or not _version(requirement):
            raise BuildError(
                f"{path}: {requirement.name} has no `==` version, or no sha256",
                "write a lock: uv pip compile --generate-hashes, or uv export --format pylock.toml",
            )
        yield requirement, hashes


def _version(requirement: Requirement) -> str:
    """Return the one version that a requirement allows, empty if there may be more."""
    versions = [each for each in requirement.specifier if each.operator in ("==", "===")]
    exact = (
        len(requirement.specifier) == 1 and len(versions) == 1 and "*" not in versions[0].version
    )
    return versions[0].version if exact else ""


def _holds(marker: Marker | None, environment: Environment) -> bool:
    return marker is None or marker.evaluate(cast("dict[str, str | AbstractSet[str]]", environment))


def _environment(target: Target) -> Environment:
    """Return the values of markers on a target."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.0",
        "os_name": "posix",
        "platform_machine": target.arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.0",
        "python_version": target.python,
        "sys_platform": "linux",
    }


def _numbers(target: Target) -> tuple[int, int]:
    major, _, minor = target.python.partition(".")
    return int(major), int(minor)


def _no_wheel(path: Path, name: str, version: str, target: Target) -> BuildError:
    return BuildError(
        f"{path}: {name} {version} has no wheel for {target}",
        "robots have no compiler: lock a version with wheels, or build one and lock it",
    )
