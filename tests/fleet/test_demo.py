"""`make demo-fleet` and `make bench-fleet` do what they say, on a small scale."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demonstration_heals_a_cut_and_counts_the_loss() -> None:
    # On loopback, so that it needs neither root nor an address.
    output = run("hwtests.demo", "--loopback", "--cut", "3", "--flow", "1")
    assert "3 robots are enrolled" in output
    assert "data flows again" in output
    row = re.search(r"camera/image .* drop_oldest\D+([\d,]+)\D+([\d,]+)", output)
    assert row is not None, output
    received, lost = (int(each.replace(",", "")) for each in row.groups())
    assert received > 0
    assert lost > 0


def test_simulated_robots_come_back_and_nonsense_disturbs_no_other() -> None:
    output = run("hwtests.scale", "--robots", "50", "--processes", "1", "--seconds", "1.5")
    disturbed = re.findall(r"(\d+) connections, (\d+) of them by the (\d+) healthy", output)
    assert [each[2] for each in disturbed] == ["35", "48"]
    assert all(int(begun) > 0 and by_healthy == "0" for begun, by_healthy, _ in disturbed)
    assert "(missed)" not in output
