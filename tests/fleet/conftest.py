"""A fleet on loopback, and an operator with a home and a key."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from tests.fleet.fakerobot import FakeRobot, Servers
from tests.fleet.sites import UNSET, Site
from tests.harness.daemon import Daemon, daemon
from tests.harness.ports import free_port

UNUSED_PORT = 1
"""A port without a server."""


@dataclass
class Operator:
    """The user of dorafleet: the home folder with ~/.ssh in it."""

    home: Path
    key: asyncssh.SSHKey

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh/known_hosts"


@dataclass
class Fleet:
    """Robots by their names in cluster.yml."""

    servers: Servers
    operator: Operator
    host_key: asyncssh.SSHKey
    ports: dict[str, int] = field(default_factory=dict)

    def add(
        self, name: str, robot: FakeRobot, *more_keys: asyncssh.SSHKey, known: bool = True
    ) -> FakeRobot:
        """Start a robot's SSH server; its key is in known_hosts unless it is not `known`."""
        self.ports[name] = self.servers.start(robot, self.host_key, *more_keys)
        if known:
            self.trust(name, self.host_key)
        return robot

    def add_unreachable(self, name: str) -> None:
        self.ports[name] = UNUSED_PORT

    def trust(self, name: str, key: asyncssh.SSHKey) -> None:
        line = key.export_public_key("openssh").decode().strip()
        with self.operator.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{self.ports[name]} {line}\n")

    def file(self, port: int | None = None) -> Path:
        """Write the cluster.yml of these robots, with a coordinator at `port` (or at any)."""
        # Not the usual port: another test's coordinator may listen there.
        lines = [f"coordinator: {{addr: 127.0.0.1, port: {port or free_port()}}}", "machines:"]
        for name, port in self.ports.items():
            lines += [f"  - {{id: {name}, host: 127.0.0.1, port: {port}, user: root}}"]
        path = self.operator.home / "cluster.yml"
        path.write_text("\n".join(lines) + "\n")
        return path


@pytest.fixture(scope="session")
def keys() -> tuple[asyncssh.SSHKey, asyncssh.SSHKey, asyncssh.SSHKey]:
    """The operator's key, the key of a host, and the key of another host."""
    one, two, three = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
    return one, two, three


@pytest.fixture
def operator(tmp_path, keys, monkeypatch) -> Operator:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    keys[0].write_private_key(home / ".ssh/id_ed25519")
    keys[0].write_public_key(home / "authorized_keys")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Operator(home, keys[0])


@pytest.fixture
def fleet(operator, keys) -> Iterator[Fleet]:
    servers = Servers(operator.home / "authorized_keys")
    try:
        yield Fleet(servers, operator, keys[1])
    finally:
        servers.end()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test has started, to be ended in reverse order."""
    with ExitStack() as found:
        yield found


@pytest.fixture
def site(fleet, tmp_path, capsys, monkeypatch) -> Iterator[Site]:
    """An operator's machine, whose commands talk to its own coordinator."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = Site(fleet, tmp_path, capsys)
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(found.port))
    yield found
    found.kill()


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> dict[str, Path]:
    """Small packages by the name that tests give them."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb")
    folder = tmp_path_factory.mktemp("packages")
    wanted = {
        "good": ("dorad", "1.0.0", "arm64"),
        "amd64": ("dorad", "1.0.0", "amd64"),
        "other": ("dorafleet", "1.0.0", "arm64"),
        "commit": ("dorad", "0.2.0~dev11+g000000000", "arm64"),
    }
    return {name: package(folder, *fields) for name, fields in wanted.items()}


def package(folder: Path, name: str, version: str, architecture: str) -> Path:
    tree = folder / f"{name}-{version}-{architecture}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: nobody <nobody@dorad.invalid>\nDescription: a test\n"
    )
    (tree / "data").write_bytes(bytes(range(256)) * 4096)
    path = folder / f"{name}_{version}_{architecture}.deb"
    command = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, path]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return path


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[Daemon, Daemon]]:
    """The daemons of two robots, which a module shares."""
    with daemon() as one, daemon() as two:
        yield one, two
