"""Whether the extension was compiled from the present sources, by sizes and times alone.

Every node of a source tree asks at its start, so this reads no source and imports no hash. If the
stamp does not fit, `abi` compares the contents. Installed packages have neither sources nor stamp.
"""

from __future__ import annotations

import os
import sys

FOLDER = f"{os.path.dirname(__file__)}/native"  # noqa: PTH120 - pathlib is slow to import
CORE = f"{os.path.dirname(__file__)}/core"  # noqa: PTH120 - as above
NAME = "_native.abi3.so"
STAMP = f"{FOLDER}/_native.stamp"

_WITH_CONSTANTS = f"{os.path.dirname(__file__)}/layout.py"  # noqa: PTH120 - as above


def stamp() -> str | None:
    """Return the stamp of the present sources and extension; None if one of them is missing."""
    lines = [os.uname().machine, sys.byteorder]
    for path in (_WITH_CONSTANTS, f"{FOLDER}/{NAME}", *sources()):
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        lines.append(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}")
    return "\n".join(lines)


def sources() -> list[str]:
    """Return the paths of the C sources, in order; none in an installed package."""
    paths: list[str] = []
    for folder in (CORE, FOLDER):
        if os.path.isdir(folder):  # noqa: PTH112 - as above
            with os.scandir(folder) as entries:
                paths += sorted(each.path for each in entries if each.name.endswith((".c", ".h")))
    return paths


def fits() -> bool:
    """Return True if no file has changed since the extension was found to be current."""
    try:
        with open(STAMP, encoding="utf-8") as file:  # noqa: PTH123 - as above
            return file.read() == stamp()
    except FileNotFoundError:
        return False


def write() -> None:
    """Record that the extension is current."""
    if (text := stamp()) is not None:
        with open(STAMP, "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
            file.write(text)
