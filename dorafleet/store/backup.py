"""Backups: all entries of a store in one file, which either engine can be filled from.

A line of JSON for the head, one for each entry, and one with the checksum of all before.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from dorad.atomicfile import atomic_file
from dorad.boundedfile import read_bounded
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import LEADER, MAX_TERM, TERM, Entry, Snapshot, Store, term_in

if TYPE_CHECKING:
    from pathlib import Path


FORMAT = 1

MAX_BACKUP = 1 << 30
"""Bytes of a backup that is read."""

RESTORED = "restored"
"""The key that a restore leaves: the revision of the backup, and the one it continued from."""

GAP = 1_000_000_000
"""How much the revision grows with a restore: by more than the lost store can have counted after
the backup, so that no version is ever given twice."""

COUNTED_PER_S = 1000
"""The revision also is at least this many for each second since 1970, which no store outruns: the
same backup may be restored twice, and what the first restore has led to must look older."""

TERMS = 1000
"""How much the number of the term grows with a restore: by more terms than the lost store can have
had after the backup. Where it had more, an operator lets robot by robot be taken over."""


_START = b'{"dorafleet_backup":'
"""The first bytes of every backup."""

_log = logging.getLogger(__name__)


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    dorafleet_backup: int
    revision: int
    entries: int


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: bytes
    version: int


class _Sum(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str


async def back_up(store: Store, path: Path) -> int:
    """Write everything but the leader's key to a new file; return the number of entries.

    Only this user can read it. A backup that exists is replaced once the new one is complete.

    Raises:
        StoreError: the store cannot be read, or the path is that of something else than a backup.
        OSError: the file cannot be written.
    """
    await asyncio.to_thread(_check_replaceable, path)
    snapshot = await store.get("")
    entries = tuple(entry for entry in snapshot.entries if entry.key != LEADER)

    def write() -> None:
        with atomic_file(path) as file:
            file.write(_lines(snapshot, entries))

    await asyncio.to_thread(write)
    return len(entries)


def _check_replaceable(path: Path) -> None:
    """Raise StoreError if a path leads to something that a backup must not replace."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        if not path.is_symlink():
            raise
        _log.debug("%s: %s", path, error.strerror)
        raise _not_a_backup(path) from None
    try:
        # An empty file may be one of a database, too.
        is_backup = stat.S_ISREG(os.fstat(number).st_mode) and (
            os.read(number, len(_START)) == _START
        )
    finally:
        os.close(number)
    if not is_backup:
        raise _not_a_backup(path)


def _not_a_backup(path: Path) -> StoreError:
    return StoreError(
        Code.REFUSED,
        f"{path} is there already and is not a backup, so it is not replaced",
        "name another file",
    )


async def restore(store: Store, path: Path) -> int:
    """Fill an empty store from a backup; return the number of entries.

    Raises:
        StoreError: the file is damaged or not a backup, or the store is not empty.
        OSError: the file cannot be read.
    """
    revision, entries = await asyncio.to_thread(_read, path)
    first = int(time.time() * COUNTED_PER_S) + GAP
    if revision >= first:
        first = revision + GAP  # the clock was ahead when it counted
    todo = {"paused": False, "acknowledged": False}
    restored = msgspec.json.encode({"backup": revision, "first": first, **todo})
    kept = [_later(entry, path) for entry in entries if entry.key != RESTORED]
    await store.fill([*kept, Entry(RESTORED, restored, revision)], first)
    return len(entries)


def _later(entry: Entry, path: Path) -> Entry:
    """Return an entry of a backup, with a later number if it is that of the term."""
    if entry.key != TERM:
        return entry
    number = min(term_in(entry.value, str(path)) + TERMS, MAX_TERM - 1)
    return replace(entry, value=str(number).encode())


def _lines(snapshot: Snapshot, entries: tuple[Entry, ...]) -> bytes:
    lines: list[object] = [_Head(FORMAT, snapshot.revision, len(entries))]
    lines += [_Line(entry.key, entry.value, entry.version) for entry in entries]
    content = msgspec.json.Encoder().encode_lines(lines)
    return content + msgspec.json.encode(_Sum(hashlib.sha256(content).hexdigest())) + b"\n"


def _read(path: Path) -> tuple[int, tuple[Entry, ...]]:
    content = read_bounded(path, MAX_BACKUP, pipes=True)
    body, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        digest = msgspec.json.decode(last, type=_Sum).sha256
        if digest != hashlib.sha256(body).hexdigest():
            raise _not_usable(path, "its checksum is wrong")
        first, *rest = body.splitlines()
        head = msgspec.json.decode(first, type=_Head)
        if head.dorafleet_backup != FORMAT:
            raise _not_usable(path, f"it has format {head.dorafleet_backup}, not {FORMAT}")
        lines = [msgspec.json.decode(line, type=_Line) for line in rest]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _not_usable(path, "it is no backup, or only a part of one") from None
    if len(lines) != head.entries:
        raise _not_usable(path, f"it has {len(lines)} entries, not {head.entries}")
    return head.revision, tuple(Entry(line.key, line.value, line.version) for line in lines)


def _not_usable(path: Path, why: str) -> StoreError:
    return StoreError(Code.DAMAGED, f"{path} cannot be restored: {why}", "use another backup")
