"""What a machine can run: its architecture, Python, C library, and version of dorad."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import msgspec

from dorad import __version__
from dorad.release.errors import ReleaseError
from dorad.release.manifest import Environment, File, Manifest, Object, Target

NEWEST = "2.999"
"""A version of glibc that runs what was made for any other."""


class Machine(msgspec.Struct, frozen=True):
    """The facts about a machine that a release depends on."""

    arch: str
    python: str
    """`3.13`: that of dorad, with which nodes run."""
    glibc: str
    """`2.41`; empty for another C library."""
    dorad: str = __version__

    @property
    def target(self) -> Target:
        """The target that fits exactly this machine."""
        return Target(self.arch, self.python, self.glibc)


def this_machine() -> Machine:
    """Return the facts about this machine."""
    library, version = platform.libc_ver()
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Machine(platform.machine(), python, version if library == "glibc" else "")


def fits(target: Target, machine: Machine) -> bool:
    """Return True if what was made for `target` runs on `machine`."""
    return (
        target.arch == machine.arch
        and target.python in ("", machine.python)
        and (not target.glibc or numbers(machine.glibc) >= numbers(target.glibc))
    )


def check_machine(manifest: Manifest, machine: Machine) -> None:
    """Check that a release runs on a machine.

    Raises:
        ReleaseError: code `machine`, with what does not fit.
    """
    if numbers(machine.dorad) < numbers(manifest.min_dorad):
        raise ReleaseError(
            "machine",
            f"it needs dorad {manifest.min_dorad} or newer, this is {machine.dorad}",
            "upgrade the package dorad first",
        )
    if manifest.targets and not any(fits(each, machine) for each in manifest.targets):
        made = "; ".join(map(str, manifest.targets))
        raise ReleaseError(
            "machine",
            f"it is for {made}; this machine is {machine.target}",
            "add it: dorafleet release build --target",
        )


def environment_for(manifest: Manifest, machine: Machine) -> Environment | None:
    """Return the environment for a machine, the newest C library first; None without one."""
    fitting = [each for each in manifest.environments if fits(each.target, machine)]
    return max(fitting, key=lambda each: numbers(each.target.glibc), default=None)


def needed_files(manifest: Manifest, machine: Machine) -> Iterator[File]:
    """Yield the files that a machine needs."""
    yield from manifest.files
    environment = environment_for(manifest, machine)
    for index in () if environment is None else environment.packages:
        yield from manifest.packages[index].files


def needed_objects(manifest: Manifest, machine: Machine) -> list[Object]:
    """Return the objects that a machine needs, each once, in a fixed order."""
    return sorted({file.object for file in needed_files(manifest, machine)})


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    values = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        values.append(int(digits))
    return tuple(values)
