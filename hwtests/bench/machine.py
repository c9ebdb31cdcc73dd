"""The machine and the versions of a run."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

VERSIONS = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in ("dorad", "dora-rs", "dora-rs-cli", "iceoryx2", "numpy", "pyarrow"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def cpu_model() -> str:
    """Return the name of the processor from the kernel."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe() -> dict[str, object]:
    """Return the machine, its kernel, its load and the time as plain data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "load_before": os.getloadavg()[0],
    }


def versions(python: Path) -> dict[str, str]:
    """Return the versions of Python and the measured packages in a virtual environment.

    Raises:
        subprocess.CalledProcessError: its interpreter does not work.
    """
    done = subprocess.run(
        [python, "-c", VERSIONS], check=True, capture_output=True, text=True, timeout=30
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
