"""The control socket: its place, its mode, and an existing file in its place."""

import errno
import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorad.control import peer as peers
from dorad.control.errors import ControlError
from dorad.control.peer import Peer, local_role, may_command, peer_of
from dorad.control.roles import with_role_check
from dorad.control.server import Call, ControlServer, bind_socket, remove_socket

from .serving import VERSION, raw, status


@pytest.mark.parametrize(("group", "mode"), [(None, 0o600), (os.getgid(), 0o660)])
def test_the_mode_follows_from_the_group(tmp_path: Path, group: int | None, mode: int) -> None:
    sock, inode = bind_socket(tmp_path / "s", group)
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
    sock, _ = bind_socket(tmp_path / "s", other_group())
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
    sock, _ = bind_socket(tmp_path / "s", os.getgid() + 1)
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
        bind_socket(tmp_path / "s", os.getgid() + 1)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_no_client_connects_before_the_mode_is_set(tmp_path: Path) -> None:
    sock, _ = bind_socket(tmp_path / "s", None)
    with sock, socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(tmp_path / "s"))


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
        dead.listen()
    sock, _ = bind_socket(tmp_path / "s", None)
    sock.close()


@pytest.mark.parametrize("backlog", [0, 5])
def test_the_socket_of_a_live_daemon_is_not(tmp_path: Path, backlog: int) -> None:
    """Also if it hangs, so that its backlog is full."""
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(tmp_path / "s"))
        live.listen(backlog)
        client.connect(str(tmp_path / "s"))
        with pytest.raises(ControlError, match="already") as caught:
            bind_socket(tmp_path / "s", None)
    assert caught.value.code == "exists"
    assert (tmp_path / "s").exists()


def test_a_file_that_is_not_a_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ControlError, match="is not a socket"):
        bind_socket(tmp_path / "s", None)
    assert (tmp_path / "s").read_text() == "mine"


def test_an_impossible_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        bind_socket(tmp_path / ("x" * 120), None)
    with pytest.raises(ControlError, match="cannot be used: No such file"):
        bind_socket(tmp_path / "none" / "s", None)


def test_another_daemons_socket_is_not_removed(tmp_path: Path) -> None:
    first, inode = bind_socket(tmp_path / "s", None)
    first.close()
    second, _ = bind_socket(tmp_path / "s", None)
    with second:
        remove_socket(tmp_path / "s", -1)
        assert (tmp_path / "s").exists()
    remove_socket(tmp_path / "gone", inode)


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


def test_the_exporter_may_look_although_it_is_in_the_group(monkeypatch) -> None:
    user = pwd.getpwnam("nobody")
    monkeypatch.setattr(peers, "EXPORTER_USER", user.pw_name)
    exporter = Peer(1, uid=user.pw_uid, gid=user.pw_gid, groups=frozenset({7}))
    assert local_role(exporter, 1000, 7) == "viewer"
    assert local_role(exporter, 1000, None) is None
    assert local_role(exporter._replace(groups=frozenset()), 1000, 7) is None
    assert not may_command(exporter, 1000, 7)
    assert local_role(exporter._replace(uid=1001), 1000, 7) == "admin"


async def test_a_viewer_may_change_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(peers, "EXPORTER_USER", "nobody")
    user = pwd.getpwnam("nobody")
    asked = []

    async def down(call: Call, params: m.Shutdown) -> m.Nothing:
        asked.append(call)
        return m.Nothing()

    server = ControlServer(
        with_role_check({"daemon.shutdown": down, "daemon.status": status}, m.METHODS),
        version=VERSION,
        credentials=lambda _: Peer(1, user.pw_uid, user.pw_gid, frozenset({os.getgid()})),
    )
    await server.serve(tmp_path / "s", group=os.getgid())
    async with raw(tmp_path / "s") as client:
        refused = (await client.call(1, "daemon.shutdown"))["error"]
        assert (refused["code"], asked) == ("refused", [])
        assert "needs the role admin" in refused["message"]
        assert "result" in await client.call(2, "daemon.status")
    await server.close()


def test_the_peer_is_identified_by_the_kernel() -> None:
    here, there = socket.socketpair()
    with here, there:
        peer = peer_of(here)
    assert peer == Peer(os.getpid(), os.getuid(), os.getgid(), frozenset(os.getgroups()))
