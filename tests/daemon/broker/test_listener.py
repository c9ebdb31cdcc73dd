"""The broker's socket in the file system."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.daemon.broker.listener import own_socket


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as base:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        (Path(base) / "dora").mkdir(mode=0o700)
        yield Path(base) / "dora"


def test_a_socket_is_named_after_port_and_process(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORA_DAEMON_LOCAL_LISTEN_PORT", "1234")
    assert own_socket() == runtime / f"1234-{os.getpid()}.sock"


def test_the_sockets_of_ended_processes_are_removed(runtime: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale, living, other = (
        runtime / f"53291-{ended.pid}.sock",
        runtime / f"53291-{os.getppid()}.sock",
        runtime / "notes.sock",
    )
    for path in (stale, living, other):
        path.touch()
    own_socket()
    assert sorted(runtime.iterdir()) == sorted([living, other])


def test_a_file_at_our_own_path_is_removed(runtime: Path) -> None:
    path = own_socket()
    path.touch()
    own_socket()
    assert not path.exists()
