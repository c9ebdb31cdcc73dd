"""What the C sources of the data plane are compiled with: the layout's constants, a fingerprint.

`packaging/native.py` writes both into the extension when it builds it, and `dorad.shm.native`
compares them when it loads it.
"""

from __future__ import annotations

import platform
from pathlib import Path

from dorad.shm import stamp
from dorad.shm.layout import constants

SOURCES = Path(stamp.FOLDER)
"""Where the C sources of the extension are; installed packages have none."""

CORE = Path(stamp.CORE)
"""Where those are that need no Python, of which libdora_node is built, too."""

EXTENSION = SOURCES / stamp.NAME


def header() -> str:
    """Return `layout_constants.h`: a macro for each constant, and `LAYOUT(X)` to list them all."""
    numbers = constants()
    lines = ["/* Generated from dorad/shm/layout.py by packaging/native.py. */", "#pragma once"]
    lines += [
        f"#define {name} {f'UINT64_C({value})' if value >> 63 else value}"
        for name, value in numbers.items()
    ]
    lines += ["#define LAYOUT(X) " + " ".join(f"X({name})" for name in numbers)]
    return "\n".join(lines) + "\n"


def fingerprint() -> str | None:
    """Return a digest of the C sources, the layout and the machine; None without sources."""
    sources = [Path(each) for each in stamp.sources()]
    if not sources:
        return None
    import hashlib  # here, because installed packages have no use for it

    # The machine, because a source tree may be copied from one to another with all that is in it.
    digest = hashlib.sha256(f"{platform.machine()}\n{header()}".encode())
    for path in sources:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def is_current(path: Path) -> bool:
    """Return True if an extension was compiled from the present sources, for this machine.

    Without sources it is taken for current.

    Raises:
        OSError: it cannot be read.
    """
    wanted = fingerprint()
    return wanted is None or wanted.encode() in path.read_bytes()
