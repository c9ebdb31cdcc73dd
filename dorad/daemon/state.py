"""What a daemon remembers over its own death: dataflows, how far they are, parameters.

SQLite in WAL mode. A commit is a write into the page cache, which is safe against the end of the
process and takes some 50 us, so it is done right in the event loop; what must survive a power cut
is followed by `sync`, in a thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from dorad.daemon import sparestate
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

SCHEMA = 3

_TABLES = """
CREATE TABLE dataflow (
    uuid TEXT PRIMARY KEY, name TEXT, path TEXT NOT NULL, original TEXT NOT NULL,
    descriptor TEXT NOT NULL, options TEXT NOT NULL, log_dir TEXT NOT NULL,
    status TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    results TEXT NOT NULL DEFAULT '[]', failures TEXT NOT NULL DEFAULT '[]',
    snapshot TEXT NOT NULL DEFAULT '{}', enabled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE param (
    dataflow TEXT NOT NULL REFERENCES dataflow ON DELETE CASCADE, node TEXT NOT NULL,
    key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (dataflow, node, key)
) STRICT, WITHOUT ROWID;
"""

_UPGRADES = {
    1: "ALTER TABLE dataflow ADD COLUMN enabled INTEGER NOT NULL DEFAULT 0",
    2: "DROP TABLE node; DROP TABLE restart",
}
"""What makes the next version of a file of this one."""

LARGEST_LOG = 16 << 20
"""Bytes of the write-ahead log at which it is emptied. The commit after that waits for the disk, so
it should be rare."""


class StateError(ProblemError):
    """State that cannot be written or read."""

    def __init__(self, message: str) -> None:
        super().__init__("internal", message)


class Options(msgspec.Struct, frozen=True):
    """How a dataflow was asked to be run."""

    env: dict[str, str] = {}
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    hot_reload: bool = False


class Row(msgspec.Struct):
    """One dataflow as it is stored."""

    uuid: str
    name: str | None
    path: str
    original: dict[str, Any]
    """The descriptor it was started from."""
    descriptor: dict[str, Any]
    """The descriptor as it is now."""
    options: Options
    log_dir: str
    status: str
    started_at: float
    ended_at: float | None = None
    results: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    snapshot: dict[str, Any] = {}
    enabled: bool = False
    """Whether it is started when the machine is."""


_JSON_COLUMNS = ("original", "descriptor", "options", "results", "failures", "snapshot")
_COLUMNS = (
    "uuid", "name", "path", "original", "descriptor", "options", "log_dir", "status",
    "started_at", "ended_at", "results", "failures", "snapshot", "enabled",
)  # fmt: skip


def _make_private(path: Path) -> None:
    """Let only this user read the state, which holds the `env` of all nodes.

    SQLite gives its other files the mode of this one. What the disk refuses, SQLite will report.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    for part in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + part).chmod(0o600)


class State:
    """The state file. Belongs to one thread, but for `sync`."""

    def __init__(
        self, path: Path, notice: Callable[[str], None], *, spare: Path | None = None
    ) -> None:
        """Open the file, or make it; one that cannot be used is set aside, and `notice` told.

        If it is the disk that cannot be used, the state is in `spare` until it can be.

        Raises:
            StateError: there is no file and none can be made.
        """
        self.path = path
        self._syncing = threading.Lock()
        try:
            self._open_or_set_aside(notice, spare)
        except sparestate.DISK_ERRORS as error:
            if spare is None:
                raise StateError(f"{path}: {error}") from error
            try:
                sparestate.take(path, spare)
                self.path = spare
                self._open_or_set_aside(notice, None)
            except (OSError, apsw.Error) as second:
                raise StateError(f"{path}: {error}, and {spare}: {second}") from second
            notice(
                f"{path} cannot be used ({error}); the state is in memory, which a reboot clears,"
                " until dorad is restarted with a disk that has room and can be written"
            )

    def _open_or_set_aside(self, notice: Callable[[str], None], spare: Path | None) -> None:
        """Open the file, or another in its place if it is damaged.

        Raises:
            StateError: that one cannot be used either.
        """
        try:
            self._open(spare)
        except sparestate.DISK_ERRORS:
            raise
        except (apsw.Error, _UnusableError) as error:
            if not self.path.exists():
                raise StateError(f"{self.path}: {error}") from error
            kept = self._move_away()
            notice(f"{self.path} could not be used ({error}); it is kept as {kept.name}")
            try:
                self._open(None)
            except sparestate.DISK_ERRORS:
                raise
            except (apsw.Error, _UnusableError) as second:
                raise StateError(f"{self.path}: {second}") from second

    def _open(self, spare: Path | None) -> None:
        """Open the file; with a `spare` state that is there, it is replaced by that."""
        _make_private(self.path)
        database = apsw.Connection(str(self.path))
        try:
            if database.readonly("main"):
                raise apsw.ReadOnlyError("it can only be read")
            database.set_busy_timeout(2000)
            if spare is not None:
                sparestate.give_back(spare, database)
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
                database.execute(f"PRAGMA {pragma}").fetchall()
            # A checkpoint waits for the disk: `sync` makes them, never a commit.
            database.wal_autocheckpoint(0)
            database.execute("PRAGMA journal_size_limit = 0").fetchall()
            version = database.pragma("user_version")
            if version == 0 and not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
                with database:
                    database.execute(_TABLES)
                    database.pragma("user_version", SCHEMA)
            while version in _UPGRADES:
                with database:
                    database.execute(_UPGRADES[version])
                    version += 1
                    database.pragma("user_version", version)
            if version not in (0, SCHEMA):
                raise _UnusableError(f"its layout is version {version}, this is {SCHEMA}")
            found = database.execute("PRAGMA quick_check(1)").fetchall()
            if found != [("ok",)]:
                raise _UnusableError(f"it is damaged: {found[0][0]}")
            self._database = database
            self._check()
        except BaseException:
            database.close(True)
            raise

    def _check(self) -> None:
        """Read everything once: a damaged page may look sound to SQLite.

        Raises:
            _UnusableError: what is stored is not what this daemon stores.
        """
        try:
            for row in self.rows():
                self.params(row.uuid)
        except (StateError, msgspec.MsgspecError, UnicodeError) as error:
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

    def close(self) -> None:
        """Let go of the file."""
        self._database.close(True)

    def sync(self) -> None:
        """Bring everything to the disk. Waits for it: call it in a thread.

        Raises:
            StateError: the disk is full or broken, or the file is gone.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        with self._syncing:
            try:
                if not self.path.exists():
                    raise StateError(f"{self.path} has been removed")
                size = _to_disk(log)
                if size > LARGEST_LOG:
                    self._empty_log()
            except OSError as error:
                raise StateError(f"{log}: {error.strerror}") from error
            except apsw.Error as error:
                raise StateError(f"{self.path}: {error}") from error

    def _empty_log(self) -> None:
        """Move what is in the write-ahead log to where it belongs; commits go on meanwhile."""
        with contextlib.closing(apsw.Connection(str(self.path))) as database:
            # A connection that has read nothing does not know that there is a log.
            database.execute("SELECT 1 FROM sqlite_schema").fetchall()
            database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    # -- dataflows ---------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Return all dataflows, the oldest first.

        Raises:
            StateError: the file cannot be read any more.
        """
        found = self._run(
            f"SELECT {', '.join(_COLUMNS)} FROM dataflow ORDER BY started_at"  # noqa: S608 - constants
        )
        return [self._row(values) for values in found]

    @staticmethod
    def _row(values: tuple[Any, ...]) -> Row:
        fields = dict(zip(_COLUMNS, values, strict=True))
        for column in _JSON_COLUMNS:
            fields[column] = msgspec.json.decode(fields[column])
        fields["enabled"] = bool(fields["enabled"])
        return msgspec.convert(fields, Row)

    def put(self, row: Row) -> None:
        """Store a dataflow, or all that is new of it. Raises StateError."""
        fields = msgspec.structs.asdict(row)
        for column in _JSON_COLUMNS:
            fields[column] = _json(fields[column])
        updates = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
        self._run(
            f"INSERT INTO dataflow ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - constants
            f"({', '.join(f':{name}' for name in _COLUMNS)}) "
            f"ON CONFLICT (uuid) DO UPDATE SET {updates}",
            fields,
        )

    def put_snapshot(self, uuid: str, snapshot: Mapping[str, Any]) -> None:
        """Store how far a dataflow is. Raises StateError."""
        text = _json(snapshot)
        self._run("UPDATE dataflow SET snapshot = ? WHERE uuid = ?", (text, uuid))

    def forget(self, uuids: Iterable[str]) -> None:
        """Delete dataflows with everything that belongs to them. Raises StateError."""
        for uuid in uuids:
            self._run("DELETE FROM dataflow WHERE uuid = ?", (uuid,))

    # -- parameters --------------------------------------------------------------------------

    def params(self, uuid: str) -> dict[str, dict[str, Any]]:
        """Return what was set, by node and key. Raises StateError."""
        found: dict[str, dict[str, Any]] = {}
        for node, key, value in self._run(
            "SELECT node, key, value FROM param WHERE dataflow = ? ORDER BY node, key", (uuid,)
        ):
            found.setdefault(node, {})[key] = msgspec.json.decode(value)
        return found

    def set_param(self, uuid: str, node: str, key: str, value: Any) -> None:
        """Store a parameter. Raises StateError."""
        self._run(
            "INSERT INTO param VALUES (?, ?, ?, ?) "
            "ON CONFLICT (dataflow, node, key) DO UPDATE SET value = excluded.value",
            (uuid, node, key, _json(value)),
        )

    def delete_param(self, uuid: str, node: str, key: str) -> None:
        """Delete a parameter, if it is there. Raises StateError."""
        self._run(
            "DELETE FROM param WHERE dataflow = ? AND node = ? AND key = ?", (uuid, node, key)
        )

    def _run(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        try:
            with self._database:
                found: list[tuple[Any, ...]] = self._database.execute(sql, values).fetchall()
        except (apsw.Error, UnicodeError, OverflowError) as error:
            raise StateError(f"{self.path}: {error}") from error
        return found


def _json(value: Any) -> str:
    """Return a value as JSON. Raises StateError if it cannot be spelt so."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError, RecursionError) as error:
        raise StateError(f"what is to be stored is no JSON: {error}") from error


def _to_disk(log: Path) -> int:
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
    """The file is one of SQLite's, but not one that this daemon can go on with."""
