"""The units of agent and exporter: their sandbox, and the paths that the programs use."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dorad.agent.folder import GROUP, SYSTEM_DIR, daemon_socket
from dorad.agent.status import SYSTEM_RUNTIME_DIR
from dorad.control.agentsettings import SYSTEM_FILE
from dorad.control.peer import EXPORTER_USER
from dorad.telemetry.feed import STATUS_FILE

UNITS = Path(__file__).parents[2] / "units"
AGENT = UNITS / "dorad-agent.service"
EXPORTER = UNITS / "dorad-telemetry.service"
OF_FLEET = UNITS / "fleet/dorafleet-telemetry.service"

LARGEST_EXPOSURE = 20
"""In tenths, as systemd-analyze counts it: from 0 to 100."""


def settings(unit=AGENT):
    lines = unit.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("unit", [AGENT, EXPORTER, OF_FLEET], ids=["agent", "exporter", "fleet"])
def test_a_service_is_exposed_to_little(unit):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    threshold = f"--threshold={LARGEST_EXPOSURE}"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", threshold, unit],
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


def test_the_unit_and_the_exporter_agree_on_paths_and_users():
    found = settings(EXPORTER)
    assert Path("/run", found["RuntimeDirectory"]) == STATUS_FILE.parent
    assert found["User"] == EXPORTER_USER
    assert found["SupplementaryGroups"] == GROUP
    assert f"u {EXPORTER_USER} - " in (UNITS / "sysusers.d/dorad.conf").read_text()
    program, *words = found["ExecStart"].split()
    assert words == ["--config", str(SYSTEM_FILE), "--socket", str(daemon_socket(SYSTEM_DIR))]
    assert (UNITS.parent / "packaging/bin" / Path(program).name).exists()


def test_the_exporter_of_a_fleet_is_a_user_that_reads_no_keys_of_the_coordinator():
    unit = settings(OF_FLEET)
    assert f"u {unit['User']} - " in (UNITS / "fleet/dorafleet.conf").read_text()
    coordinator = settings(UNITS / "fleet/dorafleet.service")
    assert unit["User"] != coordinator["User"]
    assert f"-/var/lib/{coordinator['StateDirectory']}" in unit["InaccessiblePaths"].split()
    program, *words = unit["ExecStart"].split()
    assert words[0::2] == ["--config", "--settings"]
    assert unit["ConditionPathExists"] == words[1]
    assert (UNITS.parent / "packaging/fleet" / Path(program).name).exists()
