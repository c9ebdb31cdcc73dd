#!/usr/bin/env python3
"""Compile the C part of the data plane: packaging/native.py [--output FOLDER]

Without a compiler or Python's headers it warns, and the data plane runs in pure Python. `$CC` may
compile for another architecture: `CC="python -m ziglang cc -target aarch64-linux-gnu.2.28"`.
`DORAD_NATIVE=1` makes that an error, `DORAD_NATIVE=0` compiles nothing. An extension that is up to
date is kept.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dorad.shm import abi, stamp  # noqa: E402

COMPILERS = (["cc"], ["gcc"], ["clang"])
FLAGS = (
    "-std=c11",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DPy_LIMITED_API=0x030B0000",
)

OLDEST_GLIBC = 17
"""Minor version of the oldest glibc 2.x that wheels are marked for: that of manylinux2014."""

GLIBC = {"libc.so.6", "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2"}


MACHINES = {"Advanced Micro Devices X86-64": "x86_64", "AArch64": "aarch64"}
"""Architectures, by the words of readelf."""


class UnavailableError(Exception):
    """This machine cannot compile; the message says what is missing."""


def main() -> int:
    """Compile the extension. Return 0 if it exists then, or if it is not required."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=abi.SOURCES, help="folder of the extension")
    parser.add_argument(
        "--tag",
        type=Path,
        action="append",
        metavar="FILE",
        help="only print the tag of a wheel with FILE; may be repeated",
    )
    parser.add_argument("flags", nargs="*", help="more flags for the compiler, after --")
    arguments = parser.parse_args()
    if arguments.tag:
        print(f"cp311-abi3-{platform_tag(arguments.tag)}")
        return 0
    path: Path = arguments.output.resolve() / abi.EXTENSION.name
    wish = os.environ.get("DORAD_NATIVE", "")
    if wish == "0":
        return 0
    if path.exists() and abi.is_current(path):
        _record(path)
        return 0
    # Remove an older extension: it must not pass for the result of this run.
    path.unlink(missing_ok=True)
    try:
        command = [*compiler(), *FLAGS, f"-I{headers()}", *arguments.flags]
    except UnavailableError as error:
        if wish == "1":
            print(f"error: DORAD_NATIVE=1, but {error}", file=sys.stderr)
            return 1
        print(f"warning: {error}; the data plane will run in pure Python, slower", file=sys.stderr)
        return 0
    code = compile_into(path, command)
    if code == 0:
        _record(path)
    return code


def _record(path: Path) -> None:
    """Let nodes of this tree see that its extension is current without reading the sources."""
    if path == abi.EXTENSION.resolve():
        stamp.write()


def compiler() -> list[str]:
    """Return the C compiler's command: `$CC`, or the first that is installed."""
    wish = shlex.split(os.environ.get("CC", ""))
    for command in [wish] if wish else COMPILERS:
        if shutil.which(command[0]):
            return command
    if wish:
        raise UnavailableError(f"$CC is not installed: {wish[0]}")
    raise UnavailableError("there is no C compiler: sudo apt-get install gcc libc6-dev")


def headers() -> str:
    """Return the folder of Python.h."""
    folder = sysconfig.get_path("include")
    if not Path(folder, "Python.h").exists():
        raise UnavailableError(f"{folder}/Python.h is missing: sudo apt-get install python3-dev")
    return folder


def compile_into(path: Path, command: list[str]) -> int:
    """Compile all sources to one extension at `path`. Return the compiler's exit code."""
    sources = sorted(
        source.relative_to(ROOT)
        for folder in (abi.CORE, abi.SOURCES)
        for source in folder.glob("*.c")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        Path(folder, "layout_constants.h").write_text(abi.header())
        _write_pyconfig(Path(folder), command)
        made = Path(folder, path.name)
        command += [f'-DDORAD_FINGERPRINT="{abi.fingerprint()}"', f"-I{folder}"]
        command += [*map(str, sources), "-o", str(made)]
        # Relative to the root, so that the result contains no path of this machine.
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode == 0:
            made.replace(path)
        else:
            print(f"error: this failed: {shlex.join(command)}", file=sys.stderr)
    return done.returncode


def _write_pyconfig(folder: Path, command: list[str]) -> None:
    """Give Debian's pyconfig.h, which looks for that of the target, this machine's.

    Both are LP64, and the limited API uses nothing else of it.
    """
    if "-target" not in command:
        return
    target = command[command.index("-target") + 1].partition(".")[0]
    python = f"python3.{sys.version_info.minor}"
    host = Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "", python, "pyconfig.h")
    if host.exists() and target not in str(host):
        own = folder / target / python / "pyconfig.h"
        own.parent.mkdir(parents=True)
        own.write_text(f'#include "{host}"\n')


def platform_tag(paths: list[Path]) -> str:
    """Return the platform that libraries need: `manylinux` where glibc is all they link to.

    Wheels for manylinux name the oldest glibc that has every symbol.
    """
    plain = sysconfig.get_platform().replace("-", "_")
    if platform.libc_ver()[0] != "glibc" or not shutil.which("readelf"):
        return plain
    command = [
        "readelf",
        "--file-header",
        "--dynamic",
        "--version-info",
        "--wide",
        *map(str, paths),
    ]
    env = os.environ | {"LC_ALL": "C"}
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    libraries = set(re.findall(r"\(NEEDED\) +Shared library: \[(.+)\]$", listed, re.MULTILINE))
    versions = [int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", listed)]
    machine = MACHINES.get(
        match[1] if (match := re.search(r"Machine: +(.+)$", listed, re.M)) else ""
    )
    if libraries - GLIBC or machine is None:
        return plain
    return f"manylinux_2_{max([OLDEST_GLIBC, *versions])}_{machine}"


if __name__ == "__main__":
    sys.exit(main())
