"""The unit of the agent: its sandbox, and the paths that the program uses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dorad.agent.folder import GROUP, SYSTEM_DIR, daemon_socket
from dorad.agent.status import SYSTEM_RUNTIME_DIR

UNITS = Path(__file__).parents[2] / "units"
AGENT = UNITS / "dorad-agent.service"

LARGEST_EXPOSURE = 20
"""In tenths, as systemd-analyze counts it: from 0 to 100."""


def settings():
    lines = AGENT.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_agent_is_exposed_to_little():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    threshold = f"--threshold={LARGEST_EXPOSURE}"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", threshold, AGENT],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_and_the_program_agree_on_paths():
    found = settings()
    assert found["ConditionPathExists"] == str(SYSTEM_DIR / "identity/agent.json")
    assert Path("/var/lib", found["StateDirectory"]) == SYSTEM_DIR
    assert Path("/run", found["RuntimeDirectory"]) == SYSTEM_RUNTIME_DIR
    assert found["ExecStart"].endswith(f"--socket {daemon_socket(SYSTEM_DIR)}")
    assert found["Group"] == GROUP
    temporary = (UNITS / "tmpfiles.d/dorad.conf").read_text()
    assert f"d {SYSTEM_DIR} {found['StateDirectoryMode']} {found['User']} {GROUP} -" in temporary
    assert f"u {found['User']} -:{GROUP} " in (UNITS / "sysusers.d/dorad.conf").read_text()
