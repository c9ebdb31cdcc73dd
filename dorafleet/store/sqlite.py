"""The engine for one coordinator: an SQLite file in WAL mode that this process has for itself.

Every commit is on the disk before it is acknowledged, which takes a fraction of a millisecond on a
good disk and much more on a busy one, so SQLite runs in its own thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import apsw

from dorafleet.store.errors import Code, CompactedError, ConflictError, StoreError, not_empty
from dorafleet.store.model import (
    LEADER,
    LEASE_S,
    Changes,
    Entry,
    Snapshot,
    Store,
    Term,
    Transaction,
    claim_of,
    end_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

LAYOUT = 1
"""The version of the tables."""

WINDOW = 256
"""Revisions that a watch reads in one go."""

_LAST = "\x7f"
"""Sorts after every key."""

_TABLES = """
    CREATE TABLE counter (revision INTEGER NOT NULL, compacted INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES (0, 0);
    CREATE TABLE entries (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE changes (
        revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)
    ) STRICT, WITHOUT ROWID;
"""

_log = logging.getLogger(__name__)


class SqliteStore(Store):
    """A store in one file. Made by `open`."""

    def __init__(self, path: Path) -> None:
        """Prepare a store; nothing is opened."""
        self.path = path
        self.name = str(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._leading = asyncio.Lock()
        self._closed = False
        self._connection: apsw.Connection

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file, or make a new one that only this user can read.

        Raises:
            StoreError: it is in use, damaged, of another version, or cannot be opened.
        """
        store = cls(path)
        try:
            store._connection = await store._run(_connect, path)
        except BaseException:
            store._thread.shutdown()
            raise
        _log.debug("%s is open", path)
        return store

    async def get(self, prefix: str, *, after: str = "", limit: int | None = None) -> Snapshot:
        """Return the entries whose key starts with `prefix` and sorts after the key `after`."""
        return await self._run(self._get, prefix, after, -1 if limit is None else limit)

    async def commit(self, transaction: Transaction) -> int:
        """Make the changes and return the revision. They are on the disk then."""
        return await self._run(self._commit, transaction)

    async def watch(self, prefix: str, start: int) -> AsyncGenerator[Changes, None]:
        """Yield every change under `prefix` from the revision `start` on, then as they happen."""
        while True:
            changed = self._changed
            grouped, revision, start = await self._run(self._changes, prefix, start)
            for changes in grouped:
                yield changes
            if start > revision:
                await changed.wait()

    async def compact(self, revision: int) -> None:
        """Forget the history up to `revision`."""
        await self._run(self._compact, revision)

    @asynccontextmanager
    async def lead(
        self,
        name: str,
        *,
        lease: float = LEASE_S,
        on_waiting: Callable[[str], object] = lambda _: None,
    ) -> AsyncIterator[Term]:
        """Wait until no other candidate leads, then lead as `name` until the block ends.

        No other process can open the file, so a leader leads until its process ends; the lease
        is not needed, and there is nothing to wait for.
        """
        del lease, on_waiting
        async with self._leading:
            claim, number = await claim_of(self, name)
            term = Term(number, await self.commit(claim), asyncio.Event())
            try:
                yield term
            finally:
                # If this fails, the next leader overwrites the key.
                with suppress(StoreError):
                    await self.commit(Transaction(compares=term.compares, deletes=(LEADER,)))

    async def fill(self, entries: Iterable[Entry], revision: int) -> None:
        """Put the entries of a backup into an empty store and continue above `revision`."""
        await self._run(self._fill, tuple(entries), revision)

    async def close(self) -> None:
        """Close the file and end all watches. Closing it twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._announce()
        await self._loop.run_in_executor(self._thread, self._connection.close, True)
        self._thread.shutdown()

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the store's thread, one after the other."""
        if self._closed:
            raise StoreError(Code.UNAVAILABLE, f"{self.path} is closed")
        try:
            return await self._loop.run_in_executor(self._thread, work, *arguments)
        except apsw.Error as error:
            raise StoreError(Code.UNAVAILABLE, f"{self.path}: {error}") from error

    def _announce(self) -> None:
        """Wake all watches."""
        self._changed.set()
        self._changed = asyncio.Event()

    # The rest runs in the thread.

    def _get(self, prefix: str, after: str, limit: int) -> Snapshot:
        with self._connection:
            rows: list[Any] = self._connection.execute(
                "SELECT key, value, version FROM entries WHERE key >= ? AND key < ? AND key > ?"
                " ORDER BY key LIMIT ?",
                (prefix, end_of(prefix) if prefix else _LAST, after, limit),
            ).fetchall()
            revision, _ = self._counter()
        return Snapshot(revision, tuple(Entry(*row) for row in rows))

    def _counter(self) -> tuple[int, int]:
        """Return the revision, and the last one whose changes are forgotten."""
        row: Any = self._connection.execute("SELECT revision, compacted FROM counter").fetchone()
        return row[0], row[1]

    def _commit(self, transaction: Transaction) -> int:
        execute = self._connection.execute
        with self._connection:
            versions = {key: self._version(key) for key in transaction.compares}
            if versions != transaction.compares:
                raise ConflictError(transaction.compares, versions)
            deletes = [key for key in transaction.deletes if self._version(key)]
            before, _ = self._counter()
            if not transaction.puts and not deletes:
                return before
            revision = before + 1
            execute("UPDATE counter SET revision = ?", (revision,))
            for key, value in transaction.puts.items():
                execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, value, revision))
                execute("INSERT INTO changes VALUES (?, ?, ?)", (revision, key, value))
            for key in deletes:
                execute("DELETE FROM entries WHERE key = ?", (key,))
                execute("INSERT INTO changes VALUES (?, ?, NULL)", (revision, key))
        # From here, not by the caller, which may have been cancelled meanwhile.
        self._loop.call_soon_threadsafe(self._announce)
        return revision

    def _version(self, key: str) -> int:
        entry = self._connection.execute("SELECT version FROM entries WHERE key = ?", (key,))
        row: Any = entry.fetchone()
        return 0 if row is None else int(row[0])

    def _changes(self, prefix: str, start: int) -> tuple[list[Changes], int, int]:
        """Return the changes in a window, the revision now, and where the next window starts."""
        with self._connection:
            revision, compacted = self._counter()
            if start <= compacted:
                raise CompactedError(start)
            end = min(start + WINDOW, max(revision + 1, start))
            changes: defaultdict[int, dict[str, bytes | None]] = defaultdict(dict)
            for number, key, value in self._connection.execute(
                "SELECT revision, key, value FROM changes WHERE revision >= ? AND revision < ?"
                " AND key >= ? AND key < ? ORDER BY revision, key",
                (start, end, prefix, end_of(prefix) if prefix else _LAST),
            ):
                changes[number][key] = value
        return [Changes(*each) for each in changes.items()], revision, end

    def _compact(self, revision: int) -> None:
        with self._connection:
            last = min(revision, self._counter()[0])
            self._connection.execute("DELETE FROM changes WHERE revision <= ?", (last,))
            self._connection.execute("UPDATE counter SET compacted = max(compacted, ?)", (last,))

    def _fill(self, entries: tuple[Entry, ...], revision: int) -> None:
        execute = self._connection.execute
        with self._connection:
            if execute("SELECT 1 FROM entries LIMIT 1").fetchall():
                raise not_empty(str(self.path))
            first = max(revision, self._counter()[0]) + 1
            execute("UPDATE counter SET revision = ?, compacted = ?", (first, first))
            self._connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                ((entry.key, entry.value, first) for entry in entries),
            )
        self._loop.call_soon_threadsafe(self._announce)


def _connect(path: Path) -> apsw.Connection:
    """Open the file for this process alone and check it. Raises StoreError."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise StoreError(Code.UNAVAILABLE, f"{path}: {error.strerror}") from None
    connection = apsw.Connection(str(path))
    try:
        # In this order: a file that is locked before WAL starts needs no shared memory, and the
        # lock holds until the end of the process.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        with connection:
            _make_tables(connection, path)
        damage = connection.execute("PRAGMA quick_check(1)").fetchall()
        if damage != [("ok",)]:
            raise _damaged(path, damage[0][0])
    except BaseException as error:
        connection.close(True)
        if isinstance(error, apsw.BusyError):
            message = f"another process uses {path}"
            raise StoreError(Code.UNAVAILABLE, message, "is a coordinator running?") from None
        if isinstance(error, (apsw.NotADBError, apsw.CorruptError)):
            raise _damaged(path, error) from error
        raise
    return connection


def _make_tables(connection: apsw.Connection, path: Path) -> None:
    layout = connection.pragma("user_version")
    if layout == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
        connection.execute(_TABLES)
        connection.pragma("user_version", LAYOUT)
    elif layout != LAYOUT:
        raise StoreError(
            Code.REFUSED,
            f"{path} has layout {layout}, this dorafleet uses {LAYOUT}",
            "use the dorafleet that wrote it",
        )


def _damaged(path: Path, why: object) -> StoreError:
    return StoreError(Code.DAMAGED, f"{path} is damaged: {why}", "restore a backup")
