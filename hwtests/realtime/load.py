"""Keeping every core busy: stress-ng where it is installed, else processes of our own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PER_CORE = 2
_SPIN = "import os\nwhile True: bytes(os.urandom(4096)).find(b'\\0' * 16)"


def commands(cores: int) -> tuple[str, list[Sequence[str]]]:
    """Return what the load is called, and the commands that make it."""
    workers = PER_CORE * cores
    stress = shutil.which("stress-ng")
    if stress is not None:
        return f"stress-ng --cpu {workers}", [[stress, "--cpu", str(workers), "--quiet"]]
    name = f"{workers} busy processes (stress-ng is not installed)"
    return name, [[sys.executable, "-S", "-c", _SPIN]] * workers


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Keep all cores busy meanwhile."""
    _, argvs = commands(os.cpu_count() or 1)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for argv in argvs:
            running.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
