"""Get the wheels of a lock with pip, and unpack them as packages of a release."""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dorad.release.manifest import DATA, SCRIPTS, SITE, File, Object, Package, Target, path_problem
from dorafleet.release.errors import BuildError
from dorafleet.release.locks import Pin, platforms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dorad.release.objects import ObjectStore

TIMEOUT_S = 3600.0
"""Maximum time of pip for one target."""
MAX_UNPACKED = 8 << 30
"""Maximum size of one unpacked wheel, bytes."""
MAX_FREE, MAX_RATIO = 64 << 20, 200
"""A file of more bytes must not have a higher compression ratio: it is read into memory."""
MAX_LINES = 3
"""Maximum number of lines of pip in an error message."""
_SCHEMES = {"purelib": SITE, "platlib": SITE, "scripts": SCRIPTS, "data": DATA}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

HEADER = """#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""
"""Runs a script with the interpreter beside it, wherever the environment is."""


def download(
    pins: Sequence[Pin], target: Target, folder: Path, wheels: Path | None = None
) -> list[Path]:
    """Get the wheels of `pins` for a target into `folder`, and return them sorted by name.

    `wheels` is a folder with wheels to use instead of the package index. pip verifies the hashes.

    Raises:
        BuildError: pip is missing, or a wheel is.
    """
    if not pins:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "requirements.txt"
    file.write_text("".join(f"{pin.line()}\n" for pin in pins))
    tag = "cp" + target.python.replace(".", "")
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    command += ["--implementation=cp", f"--python-version={target.python}"]
    command += [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    command += [f"--platform={platform}" for platform in platforms(target)]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels.absolute())]
    try:
        done = subprocess.run(
            [*command, "--requirement", str(file)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"pip is not done after {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = "; ".join(line.removeprefix("ERROR: ") for line in lines[-MAX_LINES:])
        raise BuildError(
            f"the wheels for {target} cannot be downloaded: {reason or done.stderr.strip()[-300:]}",
            "every locked package needs a wheel for every target",
        )
    file.unlink()
    return sorted(folder.glob("*.whl"))


def _pip() -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise BuildError("pip is needed to get wheels", "apt install python3-pip")
    return [program]


def unpack(wheel: Path, objects: ObjectStore) -> Package:
    """Put the files of a wheel into the store, and return them as a package.

    Raises:
        BuildError: it is not a valid wheel.
    """
    name, version = wheel.name.split("-")[:2]
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = dict(_contents(archive, wheel.name))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BuildError(f"{wheel.name} is not a wheel: {error}") from error
    return Package(
        name.replace("_", "-").lower(),
        version,
        [
            store(objects, path, content, executable=executable)
            for path, (content, executable) in sorted(files.items())
        ],
    )


def store(objects: ObjectStore, path: str, content: bytes, *, executable: bool) -> File:
    """Put a content into the store, and return it as a file."""
    wanted = Object(hashlib.sha256(content).hexdigest(), len(content), executable)
    if not objects.has(wanted):
        with objects.open_partial(wanted.sha256) as file:
            file.truncate(0)
            file.write(content)
        objects.finish(wanted)
    return File(path, *wanted)


def _contents(archive: zipfile.ZipFile, wheel: str) -> Iterator[tuple[str, tuple[bytes, bool]]]:
    """Yield the place of each file in the package, its content, and whether it is executable."""
    total = 0
    for member in archive.infolist():
        if member.is_dir():
            continue
        if problem := path_problem(member.filename):
            raise BuildError(f"{wheel}: the path {member.filename[:100]!r} {problem}")
        total += member.file_size
        if total > MAX_UNPACKED:
            raise BuildError(f"{wheel} has more than {MAX_UNPACKED >> 30} GiB")
        place = _place(member.filename)
        if place is None:
            continue
        content = _read(archive, member, wheel)
        executable = bool(member.external_attr >> 16 & 0o111)
        if place.startswith(f"{SCRIPTS}/"):
            executable = True
            if content.startswith(b"#!python"):
                content = HEADER.encode() + content.partition(b"\n")[2]
        yield place, (content, executable)
        if member.filename.endswith(".dist-info/entry_points.txt"):
            yield from _scripts(content.decode(errors="replace"), wheel)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, wheel: str) -> bytes:
    """Return the content of a file; refuse one that is too large or has not the stated size."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BuildError(f"{wheel}: {member.filename[:100]!r} is compressed in an unknown way")
    if member.file_size > max(MAX_FREE, MAX_RATIO * member.compress_size):
        raise BuildError(f"{wheel}: {member.filename[:100]!r} unpacks to {member.file_size} bytes")
    with archive.open(member) as file:
        # Not `ZipFile.read`, which decompresses 2 GiB at once, regardless of the stated size.
        content = file.read(member.file_size)
        if len(content) != member.file_size or file.read(1):
            raise BuildError(f"{wheel}: {member.filename[:100]!r} has another size than it says")
    return content


def _place(path: str) -> str | None:
    """Return where a file of a wheel belongs; None for headers, which only compilers need."""
    first, _, rest = path.partition("/")
    if not first.endswith(".data"):
        return f"{SITE}/{path}"
    scheme, _, inside = rest.partition("/")
    return f"{_SCHEMES[scheme]}/{inside}" if scheme in _SCHEMES and inside else None


class _EntryPoints(configparser.ConfigParser):
    """A parser of `entry_points.txt`, which keeps upper case in names of commands."""

    def optionxform(self, optionstr: str) -> str:
        """Return the name unchanged."""
        return optionstr


def _scripts(text: str, wheel: str) -> Iterator[tuple[str, tuple[bytes, bool]]]:
    """Yield the commands that a wheel asks for."""
    parser = _EntryPoints(delimiters=("=",), interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise BuildError(f"{wheel}: its entry points cannot be read: {error}") from error
    for section in ("console_scripts", "gui_scripts"):
        if not parser.has_section(section):
            continue
        for name, value in parser.items(section):
            module, _, function = value.split("[")[0].strip().partition(":")
            if "/" in name or not (_NAME.fullmatch(module) and _NAME.fullmatch(function)):
                raise BuildError(f"{wheel}: its command {name[:60]!r} is not valid")
            first = function.split(".")[0]
            code = f"import sys\nfrom {module} import {first}\nsys.exit({function}())\n"
            yield f"{SCRIPTS}/{name}", ((HEADER + code).encode(), True)
