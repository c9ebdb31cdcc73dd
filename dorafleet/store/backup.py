"""Backups: all entries of a store in one file, which either engine can be filled from.

A line of JSON for the head, one for each entry, and one with the checksum of all before.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.atomicfile import atomic_file
from dorad.boundedfile import read_bounded
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import LEADER, Entry

if TYPE_CHECKING:
    from pathlib import Path

    from dorafleet.store.model import Snapshot, Store

FORMAT = 1

MAX_BACKUP = 1 << 30
"""Bytes of a backup that is read."""

RESTORED = "restored"
"""The key that a restore leaves: the revision of the backup, and the one it continued from."""

GAP = 1_000_000_000
"""How much the revision grows with a restore: by more than the lost store can have counted after
the backup, so that no epoch and no version is ever given twice."""

COUNTED_PER_S = 1000
"""The revision also is at least this many for each second since 1970, which no store outruns: the
same backup may be restored twice, and what the first restore has led to must look older."""


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

    Only this user can read it. A file that exists is replaced once the new one is complete.

    Raises:
        StoreError: the store cannot be read.
        OSError: the file cannot be written.
    """
    snapshot = await store.get("")
    entries = tuple(entry for entry in snapshot.entries if entry.key != LEADER)

    def write() -> None:
        with atomic_file(path) as file:
            file.write(_lines(snapshot, entries))

    await asyncio.to_thread(write)
    return len(entries)


async def restore(store: Store, path: Path) -> int:
    """Fill an empty store from a backup; return the number of entries.

    Raises:
        StoreError: the file is damaged or not a backup, or the store is not empty.
        OSError: the file cannot be read.
    """
    revision, entries = await asyncio.to_thread(_read, path)
    first = max(revision, int(time.time() * COUNTED_PER_S)) + GAP
    restored = msgspec.json.encode({"backup": revision, "first": first})
    kept = [entry for entry in entries if entry.key != RESTORED]
    await store.fill([*kept, Entry(RESTORED, restored, revision)], first)
    return len(entries)


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
