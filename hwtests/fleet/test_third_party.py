"""Nodes of other authors, from PyPI and unmodified, in one dataflow over two robots."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from hwtests.fleet.flows import FLOW_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from hwtests.fleet.enrolled import EnrolledFleet

NODES = ("pyarrow-sender==0.5.0", "dora-echo==0.5.0", "pyarrow-assert==0.5.0")
FOLDER = "/opt/hub"
UNPACK = f"mkdir -p {FOLDER}; tar -xC {FOLDER}; chmod -R a+rX {FOLDER}"
PYTHON = "#!/usr/bin/env -S PYTHONPATH=/opt/hub /usr/lib/dorad/bin/python3"
"""The first line of their commands: the interpreter of the package, which has `dora`."""
FLOW = """\
nodes:
  - id: numbers
    path: /opt/hub/bin/pyarrow-sender
    outputs: [data]
    env: {DATA: "[1, 2, 3, 4, 5]"}
    deploy: {machine: arm1}
  - id: echo
    path: /opt/hub/bin/dora-echo
    inputs: {data: numbers/data}
    outputs: [data]
    deploy: {machine: arm2}
  - id: check
    path: /opt/hub/bin/pyarrow-assert
    inputs: {data: echo/data}
    env: {DATA: "[1, 2, 3, 4, EXPECTED]"}
    deploy: {machine: arm1}
"""


@pytest.fixture(scope="module")
def hub(robots: EnrolledFleet, tmp_path_factory: pytest.TempPathFactory) -> EnrolledFleet:
    """The fleet, with the nodes on two robots."""
    folder = tmp_path_factory.mktemp("hub")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", f"--target={folder}", *NODES], check=True, timeout=300)
    for command in (folder / "bin").iterdir():
        _, _, rest = command.read_text().partition("\n")
        command.write_text(f"{PYTHON}\n{rest}")
    packed = pack(folder)
    for robot in (robots.arm1, robots.arm2):
        robot.exec("sh", "-euc", UNPACK, stdin=packed)
    return robots


def pack(folder: Path) -> bytes:
    """Return a folder as a tar archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, arcname=".")
    return content.getvalue()


def start(fleet: EnrolledFleet, expected: int) -> subprocess.CompletedProcess[str]:
    """Run the dataflow to its end, through the coordinator."""
    fleet.server.write(FLOW_FILE, FLOW.replace("EXPECTED", str(expected)))
    words = ("dora", "start", FLOW_FILE, "--name", f"hub{expected}", "--attach")
    return fleet.server.attempt(*words, "--coordinator-addr", "127.0.0.1", timeout=120)


def test_nodes_from_pypi_run_on_two_robots_to_their_end(hub: EnrolledFleet) -> None:
    done = start(hub, 5)
    print(done.stdout, done.stderr)
    assert done.returncode == 0


def test_the_failure_of_one_of_them_is_seen_with_its_machine_s_words(hub: EnrolledFleet) -> None:
    done = start(hub, 6)
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "check" in said
    assert "AssertionError: Expected [" in said
