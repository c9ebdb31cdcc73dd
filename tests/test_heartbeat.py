"""A command that is silent for a while shows dots meanwhile; see the Makefile."""

import subprocess
import sys
from pathlib import Path

HEARTBEAT = Path(__file__).parents[1] / "packaging" / "heartbeat.py"


def test_a_silent_command_shows_dots_and_keeps_its_output_and_exit_code() -> None:
    code = "import time; print('a', flush=True); time.sleep(5); print('b'); raise SystemExit(3)"
    done = subprocess.run(
        [sys.executable, HEARTBEAT, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.strip(".")] == ["a", "b"]
    assert any(line and not line.strip(".") for line in lines)
    assert done.returncode == 3
