"""Keep every core busy: with stress-ng if it is installed, else with processes of our own."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

PER_CORE = 2
_SPIN = "import os\nwhile True: bytes(os.urandom(4096)).find(b'\\0' * 16)"


def commands(cores: int) -> tuple[str, list[Sequence[str]]]:
    """Return the name of the load and its commands."""
    workers = PER_CORE * cores
    stress = shutil.which("stress-ng")
    if stress is not None:
        return f"stress-ng --cpu {workers}", [[stress, "--cpu", str(workers), "--quiet"]]
    name = f"{workers} busy processes (stress-ng is not installed)"
    return name, [[sys.executable, "-S", "-c", _SPIN]] * workers


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Keep all cores busy in a `with` block."""
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
