"""Run the `dora` command in its own process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.harness.commands import run_command
from tests.harness.waiting import DEADLINE_S

DORA = (sys.executable, "-m", "dorad.cli")


def dora(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `dora` to its end, with `env` added to this process's environment."""
    return run_command(
        "dora", arguments, cwd=cwd, env={**os.environ, **(env or {})}, timeout=DEADLINE_S
    )
