"""The control socket: its place, its mode, and an existing file in its place."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from dorad.control import listening
from dorad.control.errors import ControlError
from dorad.control.peer import Peer, may_command, peer_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("group", "mode"), [(None, 0o600), (os.getgid(), 0o660)])
def test_the_mode_follows_from_the_group(tmp_path: Path, group: int | None, mode: int) -> None:
    sock, inode = listening.bind(tmp_path / "s", group)
    with sock:
        found = (tmp_path / "s").stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_ino == inode
    assert found.st_gid == os.getgid()


def other_group() -> int | None:
    """Return a group, not the one of new files, to which this user may give a file."""
    if os.geteuid() == 0:
        return os.getgid() + 4711
    return next((each for each in os.getgroups() if each != os.getgid()), None)


@pytest.mark.skipif(other_group() is None, reason="this user is in one group only")
def test_the_socket_belongs_to_the_group(tmp_path: Path) -> None:
    sock, _ = listening.bind(tmp_path / "s", other_group())
    with sock:
        found = (tmp_path / "s").stat()
    assert (found.st_uid, found.st_gid) == (os.getuid(), other_group())
    assert stat.S_IMODE(found.st_mode) == 0o660


def test_the_socket_is_closed_to_its_first_group_until_it_belongs_to_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the call is replaced: a user may have no second group."""
    given = []

    def chown(path: Path, uid: int, gid: int) -> None:
        given.append((path, uid, gid, stat.S_IMODE(path.stat().st_mode)))

    monkeypatch.setattr(os, "chown", chown)
    sock, _ = listening.bind(tmp_path / "s", os.getgid() + 1)
    with sock:
        assert given == [(tmp_path / "s", -1, os.getgid() + 1, 0o600)]
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660


def test_a_group_that_the_daemon_may_not_use_leaves_no_open_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(ControlError, match="cannot be used: Operation not permitted"):
        listening.bind(tmp_path / "s", os.getgid() + 1)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_no_client_connects_before_the_mode_is_set(tmp_path: Path) -> None:
    sock, _ = listening.bind(tmp_path / "s", None)
    with sock, socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(tmp_path / "s"))


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
        dead.listen()
    sock, _ = listening.bind(tmp_path / "s", None)
    sock.close()


@pytest.mark.parametrize("backlog", [0, 5])
def test_the_socket_of_a_live_daemon_is_not(tmp_path: Path, backlog: int) -> None:
    """Also if it hangs, so that its backlog is full."""
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(tmp_path / "s"))
        live.listen(backlog)
        client.connect(str(tmp_path / "s"))
        with pytest.raises(ControlError, match="already") as caught:
            listening.bind(tmp_path / "s", None)
    assert caught.value.code == "exists"
    assert (tmp_path / "s").exists()


def test_a_file_that_is_not_a_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ControlError, match="is not a socket"):
        listening.bind(tmp_path / "s", None)
    assert (tmp_path / "s").read_text() == "mine"


def test_an_impossible_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        listening.bind(tmp_path / ("x" * 120), None)
    with pytest.raises(ControlError, match="cannot be used: No such file"):
        listening.bind(tmp_path / "none" / "s", None)


def test_another_daemons_socket_is_not_removed(tmp_path: Path) -> None:
    first, inode = listening.bind(tmp_path / "s", None)
    first.close()
    second, _ = listening.bind(tmp_path / "s", None)
    with second:
        listening.remove(tmp_path / "s", -1)
        assert (tmp_path / "s").exists()
    listening.remove(tmp_path / "gone", inode)


@pytest.mark.parametrize(
    ("peer", "group", "may"),
    [
        (Peer(1, uid=0, gid=0), None, True),
        (Peer(1, uid=1000, gid=5), None, True),
        (Peer(1, uid=1001, gid=5), None, False),
        (Peer(1, uid=1001, gid=7), 7, True),
        (Peer(1, uid=1001, gid=5, groups=frozenset({7})), 7, True),
        (Peer(1, uid=1001, gid=5, groups=frozenset({8})), 7, False),
    ],
)
def test_root_the_own_user_and_the_group_may_command(
    peer: Peer, group: int | None, may: bool
) -> None:
    assert may_command(peer, own_uid=1000, group=group) is may


def test_the_peer_is_identified_by_the_kernel() -> None:
    here, there = socket.socketpair()
    with here, there:
        peer = peer_of(here)
    assert peer == Peer(os.getpid(), os.getuid(), os.getgid(), frozenset(os.getgroups()))
