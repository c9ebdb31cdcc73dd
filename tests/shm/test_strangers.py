"""Files of other users in world-writable directories are skipped and do no harm."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.shm import create, rendezvous

NOBODY = 65534


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def left() -> Iterator[Path]:
    """The name of a segment whose daemon has died."""
    path = Path(f"/dev/shm/dorad-{dead_pid()}-{os.urandom(4).hex()}")
    yield path
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)


def test_a_segment_of_this_users_dead_daemon_is_removed(left: Path) -> None:
    left.touch()
    create.unlink_stale()
    assert not left.exists()


def test_a_directory_with_the_name_of_a_segment_is_skipped(left: Path) -> None:
    left.mkdir()
    create.unlink_stale()
    assert left.is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_skipped(left: Path) -> None:
    left.touch()
    os.chown(left, NOBODY, NOBODY)
    create.unlink_stale()
    assert left.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two users")
def test_a_file_of_root_does_not_fail_other_users(left: Path) -> None:
    """The directory is sticky: another user may not unlink it, which must not fail."""
    left.touch()
    program = f"import os; from dorad.shm import create; os.setuid({NOBODY}); create.unlink_stale()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world-writable directory in place of /tmp, and a home."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(rendezvous, "SHARED", str(folder))
    monkeypatch.setattr(rendezvous, "_spare_dir", lambda: home / "run")
    return folder


def take(path: Path) -> None:
    """Take a name as another user would: with a directory that others can access."""
    path.mkdir()
    path.chmod(0o777)


def test_the_directory_in_tmp_is_used_unless_another_user_owns_it(shared: Path) -> None:
    assert rendezvous.runtime_dir() == shared / f"dora-{os.getuid()}"


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_a_name_taken_by_another_user_is_skipped(shared: Path, kind: str) -> None:
    path = shared / f"dora-{os.getuid()}"
    if kind == "directory":
        take(path)
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to(shared)
    found = rendezvous.runtime_dir()
    assert found == shared.parent / "home" / "run"
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_client_finds_the_daemon_after_the_file_of_another_user_is_removed(shared: Path) -> None:
    path = shared / f"dora-{os.getuid()}"
    take(path)
    daemon = rendezvous.runtime_dir()
    path.rmdir()
    assert rendezvous.runtime_dir() == daemon


def test_without_a_safe_directory_the_error_has_a_fix(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(shared / f"dora-{os.getuid()}")
    monkeypatch.setattr(rendezvous, "_spare_dir", lambda: None)
    with pytest.raises(PermissionError, match="must be a directory of user"):
        rendezvous.runtime_dir()


def test_a_private_runtime_directory_is_used(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(shared / f"dora-{os.getuid()}")
    # A long path has no room for sockets.
    with tempfile.TemporaryDirectory(prefix="own-", dir="/tmp") as own:
        monkeypatch.setenv("XDG_RUNTIME_DIR", own)
        assert rendezvous.runtime_dir() == Path(own) / "dora"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_is_skipped(shared: Path) -> None:
    path = shared / f"dora-{os.getuid()}"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)
    assert rendezvous.runtime_dir() == shared.parent / "home" / "run"


def test_the_spare_directory_ignores_the_variable_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`sudo -E` keeps the HOME of another user, who could replace the directory."""
    monkeypatch.setenv("HOME", "/nonexistent")
    spare = rendezvous._spare_dir()
    assert spare is None or not spare.is_relative_to("/nonexistent")
