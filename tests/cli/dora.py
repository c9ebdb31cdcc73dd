"""Run the `dora` command as a user does, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DORA = (sys.executable, "-m", "dorad.cli")
DEADLINE_S = 60.0


def dora(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `dora` to its end, with `env` added to this process's environment."""
    return subprocess.run(
        [*DORA, *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
