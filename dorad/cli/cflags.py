"""`dora cflags`: what compilers need for nodes in C and C++."""

from __future__ import annotations

import ctypes
import shlex
from pathlib import Path

import click

from dorad.problems import ProblemError

EPILOG = """\b
Examples:
  cc node.c -o node $(dora cflags --libs)
  cmake -B build -Ddora_DIR=$(dora cflags --cmake-dir)
  PKG_CONFIG_PATH=$(dora cflags --pkgconfig-dir) pkg-config --cflags dora-node
"""

PACKAGE = Path(__file__).resolve().parents[1] / "libdora"
TREE = PACKAGE.parents[1] / "build" / "native-node"
SYSTEM = Path("/usr")
LIBRARY = "lib/libdora_node.so.1"


@click.command(epilog=EPILOG)
@click.option("--libs", is_flag=True, help="Also print what the linker needs.")
@click.option("--cmake-dir", is_flag=True, help="Print the folder of CMake's package dora.")
@click.option("--pkgconfig-dir", is_flag=True, help="Print the folder of dora-node.pc.")
def cflags(*, libs: bool, cmake_dir: bool, pkgconfig_dir: bool) -> None:
    """Print the compiler's flags for nodes in C and C++.

    They are those of the library of this installation, or else of the Debian package
    libdora-node-dev.
    """
    if libs + cmake_dir + pkgconfig_dir > 1:
        raise click.UsageError("give one of --libs, --cmake-dir and --pkgconfig-dir")
    include, lib = _installed()
    if cmake_dir:
        click.echo(lib / "cmake" / "dora")
    elif pkgconfig_dir:
        click.echo(lib / "pkgconfig")
    else:
        # The second one is for sources of dora, which include "node_api.h".
        words = [] if include == SYSTEM / "include" else [f"-I{include}"]
        words.append(f"-I{include / 'dora'}")
        if libs and include != SYSTEM / "include":
            words += [f"-L{lib}", f"-Wl,-rpath,{lib}"]
        click.echo(shlex.join([*words, "-ldora_node"] if libs else words))


def _installed() -> tuple[Path, Path]:
    """Return the folders of headers and library."""
    prefix = own_prefix()
    if prefix is not None:
        _check_loads(prefix / LIBRARY)
        return prefix / "include", prefix / "lib"
    for config in (SYSTEM / "lib").glob("*/cmake/dora/dora-config.cmake"):
        return SYSTEM / "include", config.parents[2]
    if (TREE.parents[1] / "packaging" / "nodelib.py").exists():
        raise ProblemError("missing", "libdora_node is not built", "run `make native-node`")
    raise ProblemError(
        "missing",
        "this installation has no libdora_node: its wheel was built without a C compiler",
        "install gcc and libc6-dev and then dorad again, or the Debian package libdora-node-dev",
    )


def own_prefix() -> Path | None:
    """Return the folder with `include` and `lib` of this installation; None without a library."""
    return next((each for each in (PACKAGE, TREE) if (each / LIBRARY).exists()), None)


def _check_loads(library: Path) -> None:
    """Refuse a library that was built for a newer C library than that of this machine."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        hint = "build it here: `make native-node` in the sources of dorad"
        raise ProblemError("library", f"libdora_node cannot be used here: {error}", hint) from error
