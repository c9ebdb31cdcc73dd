#!/usr/bin/env python3
"""Compile the C part of the data plane: packaging/native.py [--output FOLDER]

Without a compiler or Python's headers it warns, and the data plane runs in pure Python.
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

GLIBC = {"libc.so.6", "ld-linux-aarch64.so.1"}


class UnavailableError(Exception):
    """This machine cannot compile; the message says what is missing."""


def main() -> int:
    """Compile the extension. Return 0 if it exists then, or if it is not required."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=abi.SOURCES, help="folder of the extension")
    parser.add_argument("--tag", type=Path, metavar="FILE", help="only print FILE's wheel tag")
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
    sources = sorted(source.relative_to(ROOT) for source in abi.SOURCES.glob("*.c"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        Path(folder, "layout_constants.h").write_text(abi.header())
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


def platform_tag(path: Path) -> str:
    """Return the platform that the extension needs: `manylinux` where glibc is all it links to.

    Wheels for manylinux name the oldest glibc that has every symbol.
    """
    plain = sysconfig.get_platform().replace("-", "_")
    if platform.libc_ver()[0] != "glibc" or not shutil.which("objdump"):
        return plain
    command = ["objdump", "--private-headers", str(path)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    libraries = set(re.findall(r"^ +NEEDED +(\S+)$", listed, re.MULTILINE))
    versions = [int(minor) for minor in re.findall(r" GLIBC_2\.(\d+)", listed)]
    if libraries - GLIBC:
        return plain
    return f"manylinux_2_{max([OLDEST_GLIBC, *versions])}_{platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
