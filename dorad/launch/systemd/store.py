"""Keep descriptors in systemd's FD store under long names, several under one name.

systemd keeps single descriptors, in no order, and does not report those that it refuses. Their
names have to be short, because it passes all of them in one variable. So each descriptor is named
`<number>.<index>` there, both in hexadecimal. A table in a memfd, which is in the store as well,
maps these numbers to names. It is a text to which lines are appended:

    +<number> <count> <name>        before the descriptors are sent
    -<number>                       after their removal is sent

A daemon that is killed in between leaves an incomplete entry, which the next daemon drops. Each
daemon starts a new table with the entries that it has found.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.launch.systemd.notify import Notifier

MAX_FDS = 3
_TABLE = "table."
_MAX_NAME = 3000
_REWRITE = 1 << 20
"""Size in bytes from which a table may be rewritten."""
_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    number: int
    fds: int
    socket: int
    """The inode if the entry is a single socket, otherwise 0."""


class SystemdStore:
    """An `FdStore` in systemd; `entries` has the descriptors of the last daemon."""

    def __init__(self, notifier: Notifier, received: Iterable[tuple[str, int]]) -> None:
        """Take over the descriptors that systemd has passed to this process; drop unknown ones."""
        self._notifier = notifier
        self.entries: dict[str, tuple[int, ...]] = {}
        """The descriptors of the last daemon, by name; this object owns them."""
        self._known: dict[str, _Entry] = {}
        self._number = 0
        self._table = -1
        self._table_number = 0
        self._written = 0
        self._take_over(list(received))

    @property
    def count(self) -> int:
        """The number of descriptors that systemd should keep by now."""
        return 1 + sum(entry.fds for entry in self._known.values())

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates, as `FdStore.store`."""
        if not 0 < len(fds) <= MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors cannot be kept under one name")
        if not name or len(name) > _MAX_NAME or any(letter.isspace() for letter in name):
            raise ValueError(f"{name!r} is not a valid name for descriptors")
        inode = _socket_inode(fds)
        old = self._known.get(name)
        if old is not None:
            if inode and inode == old.socket:
                # systemd silently ignores a second copy of a descriptor.
                return
            self.drop(name)
        self._number += 1
        _log.debug("storing %s: %d descriptors, number %x", name, len(fds), self._number)
        self._known[name] = _Entry(self._number, len(fds), inode)
        self._write(f"+{self._number:x} {len(fds)} {name}\n")
        for index, fd in enumerate(fds):
            self._send(f"{self._number:x}.{index}", fd)

    def drop(self, name: str) -> None:
        """Close the duplicates, as `FdStore.drop`."""
        entry = self._known.pop(name, None)
        if entry is not None:
            _log.debug("dropping %s: number %x", name, entry.number)
            for index in range(entry.fds):
                self._remove(f"{entry.number:x}.{index}")
            self._write(f"-{entry.number:x}\n")

    def drop_all(self) -> None:
        """Drop everything, including the table."""
        for name in list(self._known):
            self.drop(name)
        self._remove(f"{_TABLE}{self._table_number}")

    def close(self) -> None:
        """Close the descriptors in `entries` here; systemd keeps its own. Idempotent."""
        for fds in self.entries.values():
            for fd in fds:
                os.close(fd)
        self.entries.clear()
        if self._table >= 0:
            os.close(self._table)
            self._table = -1

    def _take_over(self, received: list[tuple[str, int]]) -> None:
        tables = {name: fd for name, fd in received if _is_table(name)}
        single = {name: fd for name, fd in received if name not in tables}
        newest = max(tables, key=_table_number, default=None)
        if newest is not None:
            self._table_number = _table_number(newest)
            for name, (number, count) in _parse(_read(tables[newest])).items():
                names = [f"{number:x}.{index}" for index in range(count)]
                if all(each in single for each in names):
                    fds = tuple(single.pop(each) for each in names)
                    self.entries[name] = fds
                    self._known[name] = _Entry(number, count, _socket_inode(fds))
                    self._number = max(self._number, number)
        _log.debug("%d entries found, %d unknown descriptors", len(self.entries), len(single))
        for name, fd in single.items():
            first, _, _ = name.partition(".")
            if _is_hexadecimal(first):
                # Do not use its number again: the removal may reach systemd after the next store.
                self._number = max(self._number, int(first, 16))
            os.close(fd)
            self._remove(name)
        self._new_table()
        for name, fd in tables.items():
            os.close(fd)
            self._remove(name)

    def _new_table(self) -> None:
        """Start a table with the current entries; it is stored before the old one is removed."""
        self._table_number += 1
        if self._table >= 0:
            os.close(self._table)
        self._table = os.memfd_create("dora-table", os.MFD_CLOEXEC)
        self._written = 0
        lines = [f"+{e.number:x} {e.fds} {name}\n" for name, e in self._known.items()]
        self._append("".join(lines))
        self._send(f"{_TABLE}{self._table_number}", self._table)

    def _write(self, line: str) -> None:
        if self._written > _REWRITE and self._written > 100 * len(self._known) * len(line):
            old = self._table_number
            self._new_table()
            self._remove(f"{_TABLE}{old}")
        else:
            self._append(line)

    def _append(self, text: str) -> None:
        data = text.encode()
        while data:
            count = os.write(self._table, data)
            self._written += count
            data = data[count:]

    def _send(self, name: str, fd: int) -> None:
        # Without FDPOLL=0 systemd closes a pipe whose writer has ended, and its content is lost.
        self._notifier.send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", (fd,))

    def _remove(self, name: str) -> None:
        self._notifier.send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def holds_dataflows(names: Iterable[str]) -> bool:
    """Return True if a store with these names keeps descriptors of a dataflow."""
    return any(not _is_table(name) for name in names)


def _socket_inode(fds: Sequence[int]) -> int:
    if len(fds) != 1:
        return 0
    status = os.fstat(fds[0])
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else 0


def _is_table(name: str) -> bool:
    return name.startswith(_TABLE) and name[len(_TABLE) :].isdecimal()


def _table_number(name: str) -> int:
    return int(name[len(_TABLE) :])


def _is_hexadecimal(text: str) -> bool:
    try:
        int(text, 16)
    except ValueError:
        return False
    return True


def _read(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _parse(table: str) -> dict[str, tuple[int, int]]:
    """Return number and count of each entry, by name. Ignore a last line that is cut."""
    entries: dict[int, tuple[str, int]] = {}
    complete, _, _ = table.rpartition("\n")
    for line in complete.split("\n"):
        match line[:1], line[1:].split(" "):
            case "+", [number, count, name] if _is_hexadecimal(number) and count.isdecimal():
                entries[int(number, 16)] = (name, int(count))
            case "-", [number] if _is_hexadecimal(number):
                entries.pop(int(number, 16), None)
    return {name: (number, count) for number, (name, count) in sorted(entries.items())}
