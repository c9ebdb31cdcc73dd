"""The shares and releases of a robot and its last coordinator, in a SQLite file.

Each change is on the disk when its method returns.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import apsw
import msgspec

from dorad.agent.model import Memory, ShareRecord
from dorad.agent.releases.model import ReleaseRecord
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation

MAX_SHARES = 200
"""Maximum number of shares of one robot."""
MAX_BYTES = 64 << 20
"""Maximum size of all shares together."""

MAX_RELEASES = 50
"""Maximum number of dataflows of one robot that come from releases."""

_SCHEMA = 2
_BUSY_MS = 2000
_TABLES = """
CREATE TABLE share (dataflow TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE memory (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, epoch INTEGER NOT NULL, audit TEXT NOT NULL
) STRICT;
"""
_TABLES_2 = """
CREATE TABLE release (dataflow TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""

_TERM_TABLE = """
CREATE TABLE IF NOT EXISTS term (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, epoch INTEGER NOT NULL, term TEXT NOT NULL,
    authority TEXT NOT NULL, revocations TEXT NOT NULL
) STRICT;
"""
"""What versions before this one do not know. The schema stays: a robot may go back to them. Its row
counts while its fleet and epoch are those of `memory`."""

_DAMAGED = (apsw.CorruptError, apsw.NotADBError, msgspec.MsgspecError, UnicodeError, RecursionError)

_log = logging.getLogger(__name__)


class ShareStore:
    """One file. It may be used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; a damaged one is renamed, and a new one begun.

        Raises:
            ControlError: the file cannot be used, or was written by a newer version.
        """
        self.notice = ""
        """The problem of a file that was damaged; empty if it was not."""
        self._path = path
        self._sizes: dict[str, int] = {}
        self.records: dict[str, ShareRecord] = {}
        """By the name of the dataflow."""
        self.releases: dict[str, ReleaseRecord] = {}
        """Dataflows that come from releases, by name. Each has a share of that name, too."""
        self.memory = Memory()
        try:
            try:
                self._open()
            except _DAMAGED as error:
                self._move_damaged(error)
                self._open()
        except (apsw.Error, OSError) as error:
            raise ControlError("refused", f"{path} cannot be used: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def put(self, record: ShareRecord) -> None:
        """Store a share, if it has changed.

        Raises:
            ControlError: there are too many, or the disk cannot be written.
        """
        name = record.order.dataflow
        if record == self.records.get(name):
            return
        content = msgspec.json.encode(record)
        others = sum(size for other, size in self._sizes.items() if other != name)
        if name not in self._sizes and len(self._sizes) >= MAX_SHARES:
            raise ControlError(
                "busy", f"this robot has {MAX_SHARES} shares, the maximum", "remove some of them"
            )
        if others + len(content) > MAX_BYTES:
            raise ControlError(
                "too-large", f"the shares of this robot would exceed {MAX_BYTES} bytes"
            )
        self._write("INSERT OR REPLACE INTO share VALUES (?, ?)", (name, content))
        self._sizes[name] = len(content)
        self.records[name] = record

    def remove(self, dataflow: str) -> None:
        """Forget a share. Raises ControlError."""
        self._write("DELETE FROM share WHERE dataflow = ?", (dataflow,))
        self._sizes.pop(dataflow, None)
        self.records.pop(dataflow, None)

    def put_release(self, record: ReleaseRecord) -> None:
        """Store a dataflow that comes from releases.

        Raises:
            ControlError: there are too many, or the disk cannot be written.
        """
        name = record.order.dataflow
        if name not in self.releases and len(self.releases) >= MAX_RELEASES:
            raise ControlError(
                "busy",
                f"this robot has {MAX_RELEASES} dataflows from releases, the maximum",
                "remove some of them",
            )
        content = msgspec.json.encode(record)
        self._write("INSERT OR REPLACE INTO release VALUES (?, ?)", (name, content))
        self.releases[name] = record

    def remove_release(self, dataflow: str) -> None:
        """Forget a dataflow that came from releases. Raises ControlError."""
        self._write("DELETE FROM release WHERE dataflow = ?", (dataflow,))
        self.releases.pop(dataflow, None)

    def remember(self, memory: Memory) -> None:
        """Store what is remembered of coordinators, if it has changed. Raises ControlError."""
        if memory == self.memory:
            return
        revocations = msgspec.json.encode(memory.revocations).decode()
        counted = (memory.fleet, memory.epoch, memory.term, memory.authority, revocations)
        self._write(
            "INSERT OR REPLACE INTO memory VALUES (0, ?, ?, ?);"
            "INSERT OR REPLACE INTO term VALUES (0, ?, ?, ?, ?, ?)",
            (memory.fleet, memory.epoch, memory.audit, *counted),
        )
        self.memory = memory

    def _write(self, sql: str, values: tuple[str | bytes | int, ...]) -> None:
        try:
            with self._db:
                self._db.execute(sql, values)
        except apsw.Error as error:
            raise ControlError(
                "unavailable",
                f"{self._path} cannot be written: {error}",
                "see `df` and the journal",
            ) from None

    def _open(self) -> None:
        """Open the file and read all of it."""
        self._db = apsw.Connection(str(self._path))
        try:
            self._db.set_busy_timeout(_BUSY_MS)
            version = self._db.execute("PRAGMA user_version").get
            if version not in range(_SCHEMA + 1):
                raise ControlError(
                    "version",
                    f"{self._path} has version {version}, this dorad-agent knows {_SCHEMA}",
                    "install the newer dorad again",
                )
            self._db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            if version != _SCHEMA:
                _log.debug("%s has schema %s; it gets %d", self._path, version, _SCHEMA)
                tables = _TABLES_2 if version else f"{_TABLES} {_TABLES_2}"
                with self._db:
                    self._db.execute(f"{tables} PRAGMA user_version = {_SCHEMA}")
            self._db.execute(_TERM_TABLE)
            self._load()
        except BaseException:
            self._db.close()
            raise

    def _load(self) -> None:
        query = (
            "SELECT memory.fleet, memory.epoch, memory.audit, coalesce(term.term, ''), "
            "coalesce(term.authority, memory.fleet), coalesce(term.revocations, '[]') "
            "FROM memory LEFT JOIN term ON (term.fleet, term.epoch) = (memory.fleet, memory.epoch)"
        )
        for fleet, epoch, audit, term, authority, revocations in self._db.execute(query):
            known = msgspec.json.decode(str(revocations), type=list[Revocation])
            given = {"fleet": fleet, "epoch": epoch, "term": term, "authority": authority}
            self.memory = msgspec.convert({**given, "audit": audit, "revocations": known}, Memory)
        for name, content in self._db.execute("SELECT dataflow, record FROM share"):
            assert isinstance(name, str)
            assert isinstance(content, bytes)
            self.records[name] = msgspec.json.decode(content, type=ShareRecord)
            self._sizes[name] = len(content)
        for name, content in self._db.execute("SELECT dataflow, record FROM release"):
            assert isinstance(name, str)
            assert isinstance(content, bytes)
            self.releases[name] = msgspec.json.decode(content, type=ReleaseRecord)

    def _move_damaged(self, why: Exception) -> None:
        kept = self._path.with_name(f"{self._path.name}.damaged.{int(time.time())}")
        self.notice = f"{self._path} was damaged ({why}); it is kept as {kept.name}"
        _log.error("%s", self.notice)
        self._path.rename(kept)
        for part in ("-wal", "-shm"):
            Path(f"{self._path}{part}").unlink(missing_ok=True)
        self._sizes.clear()
        self.records.clear()
        self.releases.clear()
        self.memory = Memory()
