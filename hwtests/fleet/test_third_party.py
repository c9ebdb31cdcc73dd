"""Nodes of other authors, from PyPI and unmodified, in one dataflow over two robots."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwtests.fleet.enrolled import NODES, EnrolledFleet
from hwtests.fleet.flows import FLOW_FILE
from hwtests.robots.shell import wait_until
from tests.hub.environment import ROBOT_NODES

CASES = Path(__file__).parents[2] / "tests/hub/cases"
LIBRARIES = ("numpy", "opencv-python-headless")
"""What they import, beside the libraries of the package."""
FOLDER = "/opt/hub"
INSTALL_S = 600
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
def hub(robots: EnrolledFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnrolledFleet]:
    """The fleet, with the nodes on two robots."""
    folder = tmp_path_factory.mktemp("hub")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", f"--target={folder}"]
    subprocess.run([*pip, *ROBOT_NODES], check=True, timeout=INSTALL_S)
    wheels = ("--python-version=3.13", "--only-binary=:all:")
    subprocess.run([*pip, *wheels, *LIBRARIES], check=True, timeout=INSTALL_S)
    shutil.copy(NODES / "tap.py", folder)
    for command in (folder / "bin").iterdir():
        _, _, rest = command.read_text().partition("\n")
        command.write_text(f"{PYTHON}\n{rest}")
    packed = pack(folder)
    for robot in (robots.arm1, robots.arm2):
        robot.exec("sh", "-euc", UNPACK, stdin=packed)
    yield robots
    # A dataflow that has failed is a problem of its robots.
    robots.dora("clean")


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


def split(case: str) -> str:
    """Return a dataflow of the tests of third-party nodes, every other node on the other robot."""
    flow = yaml.safe_load((CASES / case / f"{case}.yml").read_text())
    for number, node in enumerate(flow["nodes"]):
        node["deploy"] = {"machine": f"arm{1 + number % 2}"}
        node["path"] = f"{FOLDER}/{'' if node['path'].endswith('.py') else 'bin/'}{node['path']}"
        if "LOG_DIR" in node.get("env", {}):
            node["env"]["LOG_DIR"] = "/tmp/recorded"
    return yaml.safe_dump(flow, sort_keys=False)


def tapped(fleet: EnrolledFleet, name: str) -> list[dict[str, Any]]:
    """Return the inputs that the tap of a dataflow has seen last."""
    lines = fleet.dora("logs", name, "--node", "tap", "--tail", "300").splitlines()
    return [json.loads(line[line.index("{") :]) for line in lines if '{"id"' in line]


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("images", {"raw": 20, "left": 20, "right": 20}),
        ("selector", {"right": 20}),
        ("policy", {"right": 20, "left": 20, "position": 20}),
    ],
)
def test_connected_nodes_on_two_robots_exchange_what_they_do_on_one(
    hub: EnrolledFleet, case: str, wanted: dict[str, int]
) -> None:
    """Camera, splitter and recorder; selector and its sources; policy, executor and arm."""
    hub.server.write(FLOW_FILE, split(case))
    hub.dora("start", FLOW_FILE, "--name", case, "--detach")
    seen: Counter[str] = Counter()

    def enough() -> bool:
        seen.clear()
        seen.update(each["id"] for each in tapped(hub, case))
        return all(seen[name] >= count for name, count in wanted.items())

    try:
        wait_until(enough, f"{case} reaches its tap", timeout=60)
    finally:
        print(seen, hub.dora("node", "list"))
        found = tapped(hub, case)
        hub.dora("stop", case)
    if case == "images":
        raw = [each for each in found if each["id"] == "raw"]
        assert {(each["arrow"], each["len"]) for each in raw} == {("uint8", 9216)}
        expected = {"encoding": "rgb8", "width": 64, "height": 48, "timestamp": "AUTO"}
        assert all(each["meta"] == expected for each in raw)
        assert {each["meta"]["encoding"] for each in found if each["id"] == "left"} == {"jpeg"}
    if case == "selector":
        right = [each for each in found if each["id"] == "right"]
        assert {(each["arrow"], each["len"]) for each in right} == {("float", 8)}
        assert all(isinstance(each["meta"]["timestamp"], int) for each in right)
