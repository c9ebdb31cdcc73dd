"""A real etcd for tests: Debian's package, unpacked into a cache folder, and servers of it."""

import fcntl
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.ports import free_port

START_S = 30.0
DOWNLOAD_S = 50.0


def program() -> str:
    """The path of etcd: the installed one, or Debian's. Skips the test if neither can be had."""
    found = shutil.which("etcd")
    if found is not None:
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dorad-tests/etcd"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "usr/bin/etcd"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _unpack(cache)
    return str(path)


def _unpack(cache: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is neither etcd nor {tool}")
    folder = cache / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        command = ["apt-get", "download", "etcd-server"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=DOWNLOAD_S)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"etcd is not installed, and its package cannot be had: {error}")
    (package,) = folder.glob("etcd-server_*.deb")
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-x", package, tree], check=True, timeout=DOWNLOAD_S)
    shutil.copytree(tree, cache, dirs_exist_ok=True)
    shutil.rmtree(folder)


class Member:
    """One member of a cluster; `kill` it and `start` it again, or `stop` and `cont` it."""

    def __init__(self, folder: Path, name: str, client: int, peers: dict[str, int]) -> None:
        self.url = f"http://127.0.0.1:{client}"
        own = f"http://127.0.0.1:{peers[name]}"
        cluster = ",".join(f"{each}=http://127.0.0.1:{port}" for each, port in peers.items())
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._command = [
            program(),
            f"--name={name}",
            f"--data-dir={folder / name}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={own}",
            f"--initial-advertise-peer-urls={own}",
            f"--initial-cluster={cluster}",
            "--log-level=error",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it serves, which it does with a leader only."""
        end = time.monotonic() + START_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"etcd does not start: {self._log.read_text()[-2000:]}")
            with suppress(OSError):
                with urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:
                    if b"true" in answer.read():
                        return
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=START_S)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Cluster:
    """Members on loopback."""

    def __init__(self, folder: Path, size: int) -> None:
        ports = [free_port() for _ in range(2 * size)]
        names = [f"m{number}" for number in range(size)]
        peers = dict(zip(names, ports[size:], strict=True))
        self.members = [
            Member(folder, name, port, peers)
            for name, port in zip(names, ports[:size], strict=True)
        ]

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def start(self) -> None:
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait()

    def end(self) -> None:
        for member in self.members:
            member.kill()
