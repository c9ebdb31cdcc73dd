"""The SQLite file behind the daemon's state: opened, repaired, replaced by a spare, synced.

WAL mode. A commit is a write into the page cache, which survives the end of the process and takes
about 50 us, so it is done in the event loop. `sync` makes commits survive a power cut, in a thread.

If the disk cannot be used, at the start or later, a spare file in the runtime folder (in memory)
takes its place. It survives the daemon, as nodes do, but no reboot. Once the disk can be written,
its content moves there.
"""

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from dorad.problems import ProblemError
from dorad.sqliteerrors import DISK_ERRORS

MAX_LOG = 16 << 20
"""Bytes of the write-ahead log at which `sync` empties it. The commit after that waits for the
disk, so this should be rare."""

MIN_ROOM = 1 << 20
"""Bytes that must be free, beside twice those of the spare file, before it moves to the disk."""

_PARTS = ("", "-wal")
_BUSY_MS = 2000

_log = logging.getLogger(__name__)


class StateError(ProblemError):
    """State that cannot be written or read; the message gives the reason."""

    def __init__(self, message: str) -> None:
        super().__init__("internal", message)


class Schema(NamedTuple):
    """The tables of a database and their history."""

    version: int
    tables: str
    """SQL that creates all tables."""
    upgrades: Mapping[int, str]
    """SQL that turns a file of this version into one of the next."""
    additions: str = ""
    """SQL that creates tables if they are missing, in every file. An older dorad, to which a robot
    may go back, ignores these tables; it would not use a file of a later version."""


class Database:
    """One SQLite file. Belongs to one thread, except `sync`."""

    def __init__(
        self,
        path: Path,
        schema: Schema,
        warn: Callable[[str], None],
        *,
        spare: Path | None = None,
    ) -> None:
        """Open or create the file. Rename it and start a new one if it is unusable, and `warn`.

        If the disk cannot be used, the database is in `spare` until `move_back` succeeds.

        Raises:
            StateError: there is no file and none can be created.
        """
        self.path = path
        self._schema = schema
        self._warn = warn
        self._syncing = threading.Lock()
        self._connection: apsw.Connection | None = None
        """None until the file is open for the first time."""
        self._disk = path
        self._spare = spare
        self._changes: list[tuple[str, Any]] | None = None
        """The statements of the block of `atomically`; None outside of it."""
        self._disk_error: apsw.Error | None = None
        """Why the statements of this block are not in the file."""
        try:
            self._open_or_replace(spare)
        except DISK_ERRORS as error:
            self._use_spare(error)

    def _use_spare(self, why: apsw.Error) -> None:
        """Continue in the spare file. Raises StateError if there is none, or it is in use."""
        spare = self._spare
        if spare is None or self.path == spare:
            raise StateError(f"{self.path}: {why}") from why
        former = self._connection
        try:
            with self._syncing:
                copy_to_spare(self.path, spare)
                self.path = spare
                self._open_or_replace(None)
        except (OSError, apsw.Error, StateError) as error:
            self.path = self._disk
            raise StateError(f"{self.path}: {why}, and {spare}: {error}") from error
        _close(former)
        self._warn(
            f"{self._disk} cannot be used ({why}); the state is in memory, which a reboot clears,"
            " until the disk has room and can be written"
        )

    def move_back(self) -> bool:
        """Move the content of the spare file to the disk, if it is in use and there is room."""
        spare = self._spare
        if spare is None or self.path != spare or self._changes is not None:
            return False
        try:
            space = os.statvfs(self._disk.parent)
            if space.f_bavail * space.f_frsize < spare.stat().st_size * 2 + MIN_ROOM:
                return False
            former = self._connection
            assert former is not None
            # All of it in the one file, which is copied.
            former.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            with self._syncing:
                self.path = self._disk
                try:
                    self._open(spare)
                except BaseException:
                    self.path = spare
                    raise
        except (OSError, apsw.Error, _UnusableError) as error:
            _log.debug("the state stays in %s: %s", spare, error)
            return False
        _close(former)
        # No warning, which would make a release that is on probation unhealthy.
        _log.info("the state is in %s again", self._disk)
        return True

    def _open_or_replace(self, spare: Path | None) -> None:
        """Open the file, or a new one in its place if it is unusable.

        Raises:
            StateError: the new file is unusable too.
        """
        try:
            self._open(spare)
        except DISK_ERRORS:
            raise
        except (apsw.Error, _UnusableError) as error:
            if not self.path.exists():
                raise StateError(f"{self.path}: {error}") from error
            kept = self._move_away()
            self._warn(f"{self.path} could not be used ({error}); it is kept as {kept.name}")
            try:
                self._open(None)
            except DISK_ERRORS:
                raise
            except (apsw.Error, _UnusableError) as second:
                raise StateError(f"{self.path}: {second}") from second

    def _open(self, spare: Path | None) -> None:
        """Open the file; first replace its content by that of `spare`, if there is such a file."""
        _make_private(self.path)
        connection = apsw.Connection(str(self.path))
        try:
            if connection.readonly("main"):
                raise apsw.ReadOnlyError("it is read-only")
            connection.set_busy_timeout(_BUSY_MS)
            if spare is not None:
                _restore_spare(spare, connection)
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            # A checkpoint waits for the disk: only `sync` makes one, never a commit.
            connection.wal_autocheckpoint(0)
            connection.execute("PRAGMA journal_size_limit = 0").fetchall()
            self._upgrade(connection)
            problems = connection.execute("PRAGMA quick_check(1)").fetchall()
            if problems != [("ok",)]:
                raise _UnusableError(f"it is damaged: {problems[0][0]}")
            self._connection = connection
            self._check()
        except BaseException:
            connection.close(True)
            raise
        _log.debug("%s is open", self.path)

    def _upgrade(self, connection: apsw.Connection) -> None:
        """Create the tables of a new file, or upgrade those of an older version."""
        version = connection.pragma("user_version")
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
            with connection:
                connection.execute(self._schema.tables)
                connection.pragma("user_version", self._schema.version)
        while version in self._schema.upgrades:
            _log.debug("%s has version %d and is upgraded", self.path, version)
            with connection:
                connection.execute(self._schema.upgrades[version])
                version += 1
                connection.pragma("user_version", version)
        with connection:
            connection.execute(self._schema.additions)
        if version not in (0, self._schema.version):
            raise _UnusableError(
                f"its layout is version {version}, this dorad uses {self._schema.version}"
            )

    def check_content(self) -> None:
        """Read all content; a subclass raises if it is damaged."""
        raise NotImplementedError

    def _check(self) -> None:
        """Read everything once: SQLite does not detect every damaged page."""
        try:
            self.check_content()
        except (StateError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _UnusableError(f"it is damaged: {error}") from error

    def _move_away(self) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        kept = self.path.with_name(f"{self.path.name}.unusable-{stamp}")
        number = 1
        while kept.exists():
            number += 1
            kept = kept.with_name(f"{self.path.name}.unusable-{stamp}.{number}")
        for suffix in ("", "-wal", "-shm"):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                source.rename(kept.with_name(kept.name + suffix))
        return kept

    def execute(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Run one statement in its own transaction; return all rows. Raises StateError."""
        if self._changes is not None:
            self._changes.append((sql, values))
            if self._disk_error is not None:
                return []
        try:
            return self._run(sql, values)
        except DISK_ERRORS as error:
            if self._spare is None or self.path == self._spare:
                raise StateError(f"{self.path}: {error}") from error
            if self._changes is not None:
                # The block runs to its end, and is repeated in the spare file.
                self._disk_error = error
                return []
            self._use_spare(error)
        except (apsw.Error, UnicodeError, OverflowError) as error:
            raise StateError(f"{self.path}: {error}") from error
        return self.execute(sql, values)

    def _run(self, sql: str, values: Any) -> list[tuple[Any, ...]]:
        return self._opened.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def atomically(self) -> Iterator[None]:
        """Commit all statements of the block at once, or none if it raises. Raises StateError."""
        if self._changes is not None:
            with self._within(self._changes):
                yield
            return
        changes: list[tuple[str, Any]] = []
        self._changes, self._disk_error = changes, None
        try:
            try:
                with _transaction(self._opened):
                    yield
                    if self._disk_error is not None:
                        raise self._disk_error
            finally:
                self._changes = self._disk_error = None
        except DISK_ERRORS as error:
            self._use_spare(error)
            self._repeat(changes)
        except apsw.Error as error:
            raise StateError(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def _within(self, changes: list[tuple[str, Any]]) -> Iterator[None]:
        """Undo the statements of a block within another one if it raises."""
        begun, connection = len(changes), self._opened
        is_saved = self._disk_error is None
        if is_saved:
            connection.execute("SAVEPOINT inner")
        try:
            yield
        except BaseException:
            del changes[begun:]
            # SQLite itself has undone everything if the disk is full.
            if is_saved and connection.in_transaction:
                connection.execute("ROLLBACK TO inner; RELEASE inner")
            raise
        if is_saved and connection.in_transaction:
            connection.execute("RELEASE inner")

    def _repeat(self, changes: list[tuple[str, Any]]) -> None:
        """Run the statements of a block in the spare file. Raises StateError."""
        try:
            with _transaction(self._opened):
                for sql, values in changes:
                    self._run(sql, values)
        except (apsw.Error, UnicodeError, OverflowError) as error:
            raise StateError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._opened.close(True)

    @property
    def _opened(self) -> apsw.Connection:
        assert self._connection is not None
        return self._connection

    def sync(self) -> None:
        """Flush all commits to the disk. Blocks: call it in a thread.

        Raises:
            StateError: the disk is full or broken, or the file was removed.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        with self._syncing:
            try:
                if not self.path.exists():
                    raise StateError(f"{self.path} has been removed")
                size = _flush(log)
                if size > MAX_LOG:
                    _log.debug("%s has %d bytes and is emptied", log, size)
                    self._checkpoint()
            except OSError as error:
                raise StateError(f"{log}: {error.strerror}") from error
            except apsw.Error as error:
                raise StateError(f"{self.path}: {error}") from error

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database file, while commits continue."""
        with contextlib.closing(apsw.Connection(str(self.path))) as connection:
            # A connection notices the log only when it reads something.
            connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


@contextlib.contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """Commit the statements of the block, or none of them if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has undone everything if the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _close(connection: apsw.Connection | None) -> None:
    """Close a connection to a file that is no longer used, possibly on a broken disk."""
    if connection is not None:
        try:
            connection.close(True)
        except apsw.Error as error:
            _log.debug("a file of the state is not closed: %s", error)


def copy_to_spare(source: Path, spare: Path) -> None:
    """Copy the readable parts of `source` to `spare`, unless a spare exists.

    The file itself comes last and all at once: a spare that exists is whole.

    Raises:
        OSError: there is no room in memory either.
    """
    if spare.exists():
        return
    for part in reversed(_PARTS):
        target = spare.with_name(spare.name + part)
        target.unlink(missing_ok=True)  # a killed daemon may have left it
        partial = spare.with_name(f"{spare.name}{part}.new")
        with contextlib.suppress(FileNotFoundError):  # SQLite makes the other files on demand
            shutil.copyfile(source.with_name(source.name + part), partial)
            partial.replace(target)


def _restore_spare(spare: Path, connection: apsw.Connection) -> None:
    """Replace the database by `spare`, if that exists, and remove the spare. Raises apsw.Error."""
    if not spare.exists():
        return
    _log.debug("%s replaces the state on the disk", spare)
    with contextlib.closing(apsw.Connection(str(spare))) as source:
        with connection.backup("main", source, "main") as backup:
            backup.step()
    for part in (*_PARTS, "-shm"):
        spare.with_name(spare.name + part).unlink(missing_ok=True)


def _make_private(path: Path) -> None:
    """Let only this user read the state, which holds the `env` of all nodes.

    SQLite gives its other files the mode of this one. Errors of the disk are ignored here, because
    SQLite reports them later.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    for part in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + part).chmod(0o600)


def _flush(log: Path) -> int:
    """Wait until a file is on the disk; return its size, 0 if there is none. Raises OSError."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        os.fdatasync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


class _UnusableError(Exception):
    """The file is a SQLite database, but not one that this daemon can use."""
