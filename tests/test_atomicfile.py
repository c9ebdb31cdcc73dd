"""Files that are replaced as a whole."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys

import pytest

from dorad.atomicfile import atomic_file

WRITER = """
import sys
from pathlib import Path
from dorad.atomicfile import atomic_file

with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("durable", [True, False])
def test_readers_find_the_old_content_until_the_block_ends(tmp_path, durable):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    with atomic_file(path, durable=durable) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_private_unless_a_mode_is_given(tmp_path):
    with atomic_file(tmp_path / "key") as file:
        file.write(b"secret")
    with atomic_file(tmp_path / "manifest", mode=0o444) as file:
        file.write(b"public")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "manifest").stat().st_mode & 0o777 == 0o444


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "state.json"
    with atomic_file(path) as one, atomic_file(path) as two:
        one.write(b"one")
        two.write(b"two")
    assert path.read_bytes() == b"one"


def test_what_a_killed_writer_has_left_is_removed_but_not_what_a_live_one_writes(tmp_path):
    path, others = tmp_path / "a", tmp_path / ".a.txt"
    others.write_bytes(b"of a user")
    command = [sys.executable, "-c", WRITER, str(path)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as killed,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as alive,
    ):
        for process in (killed, alive):
            assert process.stdout.readline() == "writes\n"
        killed.kill()
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 3
        with atomic_file(path) as file:
            file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 3
        assert path.read_bytes() == b"whole"
        alive.communicate("")
        assert alive.returncode == 0
    assert path.read_bytes() == b"half"
    assert sorted(tmp_path.iterdir()) == [others, path]


def test_files_are_replaced_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path, left = tmp_path / "a", tmp_path / ".a.0123abcd"
    left.write_bytes(b"perhaps of a live writer")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with atomic_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert left.exists()


@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "dangling", "folder"])
def test_only_a_regular_file_is_replaced(tmp_path, kind):
    path, other = tmp_path / "target", tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.close()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other)
        if kind == "link":
            other.write_bytes(b"kept")
    before = path.lstat()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"), atomic_file(path):
        pytest.fail("there is nothing to write to")
    assert path.lstat() == before
    assert other.exists() is (kind == "link")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device")
def test_a_device_is_not_replaced(tmp_path):
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error.strerror}")
    with pytest.raises(OSError, match="not a regular file"), atomic_file(path):
        pytest.fail("there is nothing to write to")
    assert stat.S_ISCHR(path.lstat().st_mode)
