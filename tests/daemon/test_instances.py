"""Daemons of one user side by side, distinguished by the port of dora's coordinator."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.shm.rendezvous import MAX_DIR_BYTES
from tests.harness.commands import run_command, succeeds
from tests.harness.daemon import Daemon, daemon
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

FLOW = "nodes: [{id: waiting, path: dynamic}]\n"


ATTACH = """
import sys
from dorad.shm import rendezvous
from pathlib import Path
rendezvous.SYSTEM_DIR = Path(sys.argv[1])
from dora import Node
Node("waiting").next(timeout=0.0)
print("attached")
"""
"""A dynamic node, and the folder that it takes for that of the machine's daemon."""


class Instances:
    """Runs `dora` in the folders of one daemon that has ended."""

    def __init__(self, dorad: Daemon) -> None:
        self.env = dorad.env
        self.bin = dorad.bin
        self.runtime = dorad.paths.runtime

    def dora(
        self, *arguments: str, port: str | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {**self.env, **env, **self._choice(port)}
        return run_command("dora", arguments, env=variables, timeout=60)

    def attach(self, machine: Path, port: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "python"), "-c", ATTACH, str(machine)],
            env={**self.env, **self._choice(port)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @staticmethod
    def _choice(port: str | None) -> dict[str, str]:
        return {} if port is None else {"DORA_COORDINATOR_PORT": port}

    def names(self, port: str) -> list[str]:
        lines = self.dora("list", "--format", "json", port=port).stdout.splitlines()
        return [json.loads(line)["name"] for line in lines]


@pytest.fixture(scope="module")
def instances() -> Iterator[Instances]:
    with daemon() as dorad:
        made = Instances(dorad)
        dorad.end()
        yield made


@pytest.fixture
def ended_afterwards(instances: Instances) -> Iterator[None]:
    """End the daemons that a test has started."""
    yield
    for port in ("6013", "7001", "7002"):
        instances.dora("down", "--force", port=port)


@pytest.mark.usefixtures("ended_afterwards")
def test_each_port_has_a_daemon_with_its_own_dataflows(
    instances: Instances, tmp_path: Path
) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text(FLOW)
    for port, name in (("7001", "first"), ("7002", "second"), ("6013", "usual")):
        assert instances.dora("up", port=port).returncode == 0
        succeeds(instances.dora("start", str(flow), "--detach", "--name", name, port=port))
    assert [instances.names(port) for port in ("7001", "7002", "6013", "")] == [
        ["first"],
        ["second"],
        ["usual"],
        ["usual"],
    ]
    given = instances.dora("list", "-q", "--coordinator-port", "7001", port="7002")
    assert given.stdout == instances.dora("list", "-q", port="7001").stdout
    assert instances.dora("down", "--force", "--coordinator-port", "7001").returncode == 0
    assert instances.names("7002") == ["second"]
    gone = instances.dora("list", port="7001")
    assert gone.returncode == 1
    assert "start one with `dora up --coordinator-port 7001`" in gone.stderr
    assert str(instances.runtime / "7001") in gone.stderr


@pytest.mark.parametrize(
    ("command", "port"),
    [
        *(("list", port) for port in ("many", "0", "65536", "-1", "²")),
        ("up", "0"),
        ("down", "0"),
    ],
)
def test_an_invalid_port_is_refused(instances: Instances, command: str, port: str) -> None:
    result = instances.dora(command, port=port)
    assert result.returncode == 1
    assert f"DORA_COORDINATOR_PORT is {port!r}; it must be a port number" in result.stderr


def test_an_address_is_that_of_a_coordinator(instances: Instances) -> None:
    far = instances.dora("list", "--coordinator-addr", "192.0.2.1")
    assert far.returncode == 1
    assert "the coordinator at 192.0.2.1 port 6013 is on another machine" in far.stderr
    near = instances.dora("list", "--coordinator-addr", "127.0.0.1", "--coordinator-port", "1")
    assert "no coordinator is running at 127.0.0.1 port 1" in near.stderr


@pytest.mark.usefixtures("ended_afterwards")
def test_a_dynamic_node_finds_the_daemon_of_its_port(instances: Instances, tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text(FLOW)
    for port in ("7001", "7002"):
        assert instances.dora("up", port=port).returncode == 0
    assert instances.dora("start", str(flow), "--detach", port="7001").returncode == 0
    attached = instances.attach(tmp_path, port="7001")
    assert attached.stdout == "attached\n", attached.stderr
    other = instances.attach(tmp_path, port="7002")
    assert f"looked in {instances.runtime} and {instances.runtime / '7002'}" in other.stderr


def test_a_dynamic_node_finds_the_daemon_of_the_machine(instances: Instances) -> None:
    folder = instances.runtime.parent.parent / "machine"
    folder.mkdir()
    (folder / "flow.yml").write_text(FLOW)
    machine = subprocess.Popen(
        # Relative to the folder that it is started in.
        [instances.bin / "dorad", "--runtime-dir", "run", "--state-dir", "state"],
        cwd=folder,
        env=instances.env,
        stderr=subprocess.DEVNULL,
    )
    try:
        socket = folder / "run" / "control.sock"
        wait_until(socket.exists)
        env = {"DORA_SOCKET": str(socket)}
        succeeds(instances.dora("start", str(folder / "flow.yml"), "--detach", **env))
        attached = instances.attach(folder / "run")
        assert attached.stdout == "attached\n", attached.stderr
    finally:
        machine.terminate()
        machine.wait(30)


def test_a_daemon_starts_only_where_the_sockets_of_its_dataflows_fit(
    instances: Instances,
) -> None:
    base = instances.runtime.parent.parent
    longest = base / ("y" * (MAX_DIR_BYTES - len(f"{base}/")))
    state = base / "long"
    too_long = run_command(
        "dorad",
        ["--runtime-dir", f"{longest}z", "--state-dir", state],
        env=instances.env,
        timeout=60,
    )
    assert too_long.returncode == 2, too_long.stderr
    assert f"has {MAX_DIR_BYTES + 1} bytes" in too_long.stderr

    (base / "flow.yml").write_text(FLOW)
    machine = subprocess.Popen(
        [instances.bin / "dorad", "--runtime-dir", longest, "--state-dir", state],
        env=instances.env,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until((longest / "control.sock").exists)
        env = {"DORA_SOCKET": str(longest / "control.sock")}
        env["DORA_DAEMON_LOCAL_LISTEN_PORT"] = "65535"
        succeeds(instances.dora("start", str(base / "flow.yml"), "--detach", **env))
    finally:
        machine.terminate()
        machine.wait(30)
