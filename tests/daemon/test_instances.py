"""Daemons of one user side by side, distinguished by the port of dora's coordinator."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.harness.daemon import Daemon, daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

FLOW = "nodes: [{id: waiting, path: dynamic}]\n"


class Instances:
    """Runs `dora` in the folders of one daemon that has ended."""

    def __init__(self, dorad: Daemon) -> None:
        self.env = dorad.env
        self.bin = dorad.bin
        self.runtime = dorad.paths.runtime

    def dora(self, *arguments: str, port: str | None = None) -> subprocess.CompletedProcess[str]:
        env = self.env if port is None else {**self.env, "DORA_COORDINATOR_PORT": port}
        return subprocess.run(
            [self.bin / "dora", *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

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
def test_each_port_has_a_daemon_with_dataflows_of_its_own(
    instances: Instances, tmp_path: Path
) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text(FLOW)
    for port, name in (("7001", "first"), ("7002", "second"), ("6013", "usual")):
        assert instances.dora("up", port=port).returncode == 0
        started = instances.dora("start", str(flow), "--detach", "--name", name, port=port)
        assert started.returncode == 0, started.stderr
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


def test_another_machine_is_refused_and_this_one_is_not(instances: Instances) -> None:
    far = instances.dora("list", "--coordinator-addr", "10.0.0.1")
    assert far.returncode == 1
    assert "there is no coordinator yet" in far.stderr
    near = instances.dora("list", "--coordinator-addr", "127.0.0.1", "--coordinator-port", "7001")
    assert "no dorad is running" in near.stderr
