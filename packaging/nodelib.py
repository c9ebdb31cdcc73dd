#!/usr/bin/env python3
"""Build libdora_node, for nodes in C and C++: packaging/nodelib.py [--output FOLDER] [-- FLAGS]

FOLDER is a prefix: it gets include/dora, lib/libdora_node.so, and what pkg-config and CMake need to
find them. It needs a C compiler and the C library, nothing of Python. A library that is up to date
is kept.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import native  # noqa: E402 - beside this file
import version  # noqa: E402

from dorad.shm import abi  # noqa: E402

SOURCES = ROOT / "dorad" / "libdora"
SONAME = "libdora_node.so.1"
FLAGS = ("-std=c11", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")

PKG_CONFIG = """prefix=${{pcfiledir}}/{up}
includedir=${{prefix}}/include
libdir=${{pcfiledir}}/..

Name: dora-node
Description: Node API of dora for C and C++
Version: {version}
Cflags: -I${{includedir}} -I${{includedir}}/dora
Libs: -L${{libdir}} {rpath}-ldora_node
"""

CMAKE = """# Defines the target dora::node.
get_filename_component(_dora_lib "${{CMAKE_CURRENT_LIST_DIR}}/../.." ABSOLUTE)
get_filename_component(_dora_prefix "${{CMAKE_CURRENT_LIST_DIR}}/../../{up}" ABSOLUTE)
if(NOT TARGET dora::node)
  add_library(dora::node SHARED IMPORTED)
  set_target_properties(dora::node PROPERTIES
    IMPORTED_LOCATION "${{_dora_lib}}/{soname}"
    IMPORTED_SONAME "{soname}"
    INTERFACE_INCLUDE_DIRECTORIES "${{_dora_prefix}}/include;${{_dora_prefix}}/include/dora")
endif()
"""

CMAKE_VERSION = """set(PACKAGE_VERSION "{version}")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
"""


def main() -> int:
    """Build the library. Return the compiler's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "native-node")
    parser.add_argument("--lib", default="lib", help="folder of the library below FOLDER")
    parser.add_argument(
        "--rpath", action="store_true", help="programs find the library where it is now"
    )
    parser.add_argument("flags", nargs="*", help="more flags for the compiler, after --")
    given = parser.parse_args()
    try:
        command = [*native.compiler(), *FLAGS, *given.flags]
    except native.UnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    prefix: Path = given.output.resolve()
    prefix.mkdir(parents=True, exist_ok=True)
    with (prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(prefix, given.lib, command, rpath=given.rpath)


def build(prefix: Path, lib: str, command: list[str], *, rpath: bool) -> int:
    """Compile into a prefix, unless it has the same already."""
    stamp = prefix / ".stamp"
    digest = fingerprint([*command, str(rpath)])
    if stamp.exists() and stamp.read_text() == digest:
        return 0
    folder = prefix / lib
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*sorted(abi.CORE.glob("*.c")), *sorted(SOURCES.glob("*.c"))]
    number = version.version()
    with tempfile.TemporaryDirectory(dir=prefix, prefix=".build-") as place:
        Path(place, "layout_constants.h").write_text(abi.header())
        Path(place, "version.h").write_text(f'#define DORA_VERSION "{number}"\n')
        made = Path(place, SONAME)
        # Relative to the root, so that the result contains no path of this machine.
        names = [str(source.relative_to(ROOT)) for source in sources]
        link = ["-shared", f"-Wl,-soname,{SONAME}", "-Wl,--no-undefined"]
        if any("sanitize" in flag for flag in command):
            link.pop()  # the program brings the sanitizer's functions
        whole = [*command, f"-ffile-prefix-map={place}=.", f"-I{place}", *link, *names]
        done = subprocess.run([*whole, "-o", str(made)], cwd=ROOT, check=False)
        if done.returncode:
            print(f"error: this failed: {shlex.join(whole)}", file=sys.stderr)
            return done.returncode
        made.replace(folder / SONAME)
    link_to(folder / "libdora_node.so", SONAME)
    shutil.copytree(SOURCES / "include", prefix / "include", dirs_exist_ok=True)
    up = os.path.relpath(prefix, folder)
    texts = {
        "pkgconfig/dora-node.pc": PKG_CONFIG.format(
            version=plain(number), up=f"../{up}", rpath="-Wl,-rpath,${libdir} " if rpath else ""
        ),
        "cmake/dora/dora-config.cmake": CMAKE.format(soname=SONAME, up=up),
        "cmake/dora/dora-config-version.cmake": CMAKE_VERSION.format(version=plain(number)),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    stamp.write_text(digest)
    return 0


def plain(number: str) -> str:
    """Return the numbers of a version alone: CMake compares no other."""
    return number.partition(".dev")[0].partition("+")[0]


def link_to(path: Path, target: str) -> None:
    """Make `path` a link to `target`, in one step."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.symlink_to(target)
    beside.replace(path)


def fingerprint(command: list[str]) -> str:
    """Return a digest of all that goes into the library."""
    digest = hashlib.sha256(f"{command}\n{version.version()}\n{abi.header()}".encode())
    for path in [Path(__file__), *sorted(abi.CORE.iterdir()), *sorted(SOURCES.rglob("*"))]:
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
