"""systemd's descriptor store: long names, several under one, and daemons that are killed."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.launch.systemd.notify import Notifier, take_descriptors
from dorad.launch.systemd.store import SystemdStore


class Systemd:
    """The other end of the notify socket: keeps descriptors as systemd does."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address)
        self.kept: list[tuple[str, int]] = []
        self.texts: list[str] = []

    def read(self, most: int = 10_000) -> None:
        """Process the notifications that have arrived."""
        for _ in range(most):
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, 4096, 4)
            except BlockingIOError:
                return
            self._do(data.decode(), fds)

    def ignore(self) -> None:
        """Discard notifications, as if the daemon had been killed before it sent them."""
        while True:
            try:
                _, fds, _, _ = socket.recv_fds(self._socket, 4096, 4)
            except BlockingIOError:
                return
            for fd in fds:
                os.close(fd)

    def _do(self, text: str, fds: list[int]) -> None:
        self.texts.append(text)
        fields = dict(line.split("=", 1) for line in text.splitlines())
        if "FDSTORE" in fields:
            assert fields["FDPOLL"] == "0"
            assert len(fields["FDNAME"]) <= 32
            self.kept += [(fields["FDNAME"], fd) for fd in fds]
            return
        if "FDSTOREREMOVE" in fields:
            for name, fd in [each for each in self.kept if each[0] == fields["FDNAME"]]:
                os.close(fd)
                self.kept.remove((name, fd))
        for fd in fds:
            os.close(fd)

    def hand_over(self) -> list[tuple[str, int]]:
        """Give the next daemon copies of all descriptors, in random order."""
        return [(name, os.dup(fd)) for name, fd in reversed(self.kept)]

    def close(self) -> None:
        self._socket.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory() as folder:
        made = Systemd(Path(folder))
        yield made
        made.close()


@pytest.fixture
def notifier(systemd: Systemd) -> Iterator[Notifier]:
    made = Notifier(systemd.address)
    yield made
    made.close()


def memory(text: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, text)
    return fd


def texts(fds: tuple[int, ...]) -> list[bytes]:
    found = [os.pread(fd, 100, 0) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


def put(store: SystemdStore, name: str, *contents: bytes) -> None:
    fds = [memory(content) for content in contents]
    store.store(name, fds)
    for fd in fds:
        os.close(fd)


async def test_the_next_daemon_finds_the_stored_descriptors(
    systemd: Systemd, notifier: Notifier
) -> None:
    first = SystemdStore(notifier, [])
    long = "u" * 36 + "/box/" + "node" * 50
    put(first, long, b"memory", b"bell", b"space")
    put(first, "other", b"one")
    first.close()
    systemd.read()

    second = SystemdStore(notifier, systemd.hand_over())
    assert sorted(second.entries) == sorted([long, "other"])
    assert texts(second.entries.pop(long)) == [b"memory", b"bell", b"space"]
    assert texts(second.entries.pop("other")) == [b"one"]
    second.close()


async def test_dropped_and_replaced_descriptors_are_not_found(
    systemd: Systemd, notifier: Notifier
) -> None:
    first = SystemdStore(notifier, [])
    put(first, "dropped", b"x")
    put(first, "kept", b"old")
    put(first, "kept", b"new", b"er")
    first.drop("dropped")
    first.drop("never there")
    first.close()
    systemd.read()
    assert len(systemd.kept) == first.count == 3

    second = SystemdStore(notifier, systemd.hand_over())
    assert list(second.entries) == ["kept"]
    assert texts(second.entries.pop("kept")) == [b"new", b"er"]
    second.close()


async def test_a_stored_socket_is_not_sent_again(systemd: Systemd, notifier: Notifier) -> None:
    # systemd ignores the second copy of a descriptor; removing the first would lose it.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first = SystemdStore(notifier, [])
    first.store("listener", (listener.fileno(),))
    first.close()
    systemd.read()
    before = [name for name, _ in systemd.kept if not name.startswith("table")]

    second = SystemdStore(notifier, systemd.hand_over())
    (fd,) = second.entries.pop("listener")
    second.store("listener", (fd,))
    os.close(fd)
    listener.close()
    second.close()
    systemd.read()
    assert [name for name, _ in systemd.kept if not name.startswith("table")] == before


@pytest.mark.parametrize("heard", range(12))
async def test_a_daemon_that_is_killed_at_any_moment_leaves_whole_entries(
    systemd: Systemd, notifier: Notifier, heard: int
) -> None:
    first = SystemdStore(notifier, [])
    put(first, "a", b"1", b"2", b"3")
    put(first, "b", b"4", b"5")
    first.drop("a")
    first.close()
    systemd.read(heard)
    systemd.ignore()

    second = SystemdStore(notifier, systemd.hand_over())
    whole = {"a": [b"1", b"2", b"3"], "b": [b"4", b"5"]}
    found = {name: texts(second.entries.pop(name)) for name in list(second.entries)}
    assert all(whole[name] == content for name, content in found.items())
    put(second, "c", b"6")
    second.close()
    systemd.read()

    third = SystemdStore(notifier, systemd.hand_over())
    assert texts(third.entries.pop("c")) == [b"6"]
    third.close()


async def test_a_truncated_table_loses_only_its_last_line(
    systemd: Systemd, notifier: Notifier
) -> None:
    first = SystemdStore(notifier, [])
    put(first, "a", b"1")
    first.close()
    systemd.read()
    (table,) = [fd for name, fd in systemd.kept if name.startswith("table")]
    os.lseek(table, 0, os.SEEK_END)
    os.write(table, b"+9 1 half of a na")

    second = SystemdStore(notifier, systemd.hand_over())
    assert texts(second.entries.pop("a")) == [b"1"]
    assert not second.entries
    second.close()


async def test_unknown_descriptors_are_dropped(systemd: Systemd, notifier: Notifier) -> None:
    stray = memory(b"?")
    systemd.kept.append(("7.0", os.dup(stray)))
    os.close(stray)
    store = SystemdStore(notifier, systemd.hand_over())
    put(store, "new", b"n")
    store.close()
    systemd.read()
    names = [name for name, _ in systemd.kept if not name.startswith("table")]
    assert names == ["8.0"]


async def test_a_store_that_drops_everything_is_empty(systemd: Systemd, notifier: Notifier) -> None:
    store = SystemdStore(notifier, [])
    put(store, "a", b"1", b"2")
    store.drop_all()
    store.close()
    systemd.read()
    assert systemd.kept == []


async def test_messages_beyond_a_full_socket_are_sent_once_it_has_room(
    systemd: Systemd, notifier: Notifier
) -> None:
    store = SystemdStore(notifier, [])
    for number in range(400):
        put(store, f"n{number}", b"x")
    task = asyncio.ensure_future(notifier.flushed())
    while not task.done():
        systemd.read()
        await asyncio.sleep(0)
    systemd.read()
    store.close()
    assert len(systemd.kept) == store.count == 401


@pytest.mark.parametrize("name", ["", "with space", "x" * 3001])
async def test_an_invalid_name_is_refused(systemd: Systemd, notifier: Notifier, name: str) -> None:
    store = SystemdStore(notifier, [])
    with pytest.raises(ValueError, match="not a valid name"):
        store.store(name, (0,))
    store.close()
    systemd.read()


def test_descriptors_of_another_process_are_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}
    assert take_descriptors(environ) == []
    assert environ == {}
