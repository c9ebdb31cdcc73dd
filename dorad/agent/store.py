"""The shares and releases of a robot and its last coordinator, in a SQLite file.

Each change is on the disk when its method returns, except those of `keep`, `keep_release` and
`remember`: what must be obeyed at once is obeyed on a full disk, too. It is in memory and in the
reserve until there is room.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from pathlib import Path

import apsw
import msgspec

from dorad.agent.model import Memory, ShareRecord
from dorad.agent.releases.model import ReleaseRecord
from dorad.agent.reserve import Reserve, ReserveError, Row
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation
from dorad.sqliteerrors import DISK_ERRORS

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

_PUT = {
    "share": "INSERT OR REPLACE INTO share VALUES (?, ?)",
    "release": "INSERT OR REPLACE INTO release VALUES (?, ?)",
    "memory": (
        "INSERT OR REPLACE INTO memory VALUES (0, ?, ?, ?);"
        "INSERT OR REPLACE INTO term VALUES (0, ?, ?, ?, ?, ?)"
    ),
}

_log = logging.getLogger(__name__)


class ShareStore:
    """One file. It may be used by one thread at a time."""

    def __init__(self, path: Path, spare: Path | None = None) -> None:
        """Open or create the file; a damaged one is renamed, and a new one begun.

        If the disk is full, it is read from a copy in the folder `spare`, which is in memory, and
        opened later.

        Raises:
            ControlError: the file cannot be used, or was written by a newer version.
        """
        self.notice = ""
        """The problem of a file that was damaged; empty if it was not."""
        self.trouble = ""
        """Why some changes are not stored; empty if all are."""
        self._path = path
        self._db: apsw.Connection | None = None
        """None until the disk has room to open the file."""
        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        self._unstored: dict[Row, bytes] = {}
        """Rows to be written once there is room."""
        self._in_memory: set[str] = set()
        """Dataflows whose last orders are not in the reserve either."""
        self._lost: set[str] = set()
        """Dataflows whose last orders could not be kept over a reboot."""
        self._sizes: dict[str, int] = {}
        self.records: dict[str, ShareRecord] = {}
        """By the name of the dataflow."""
        self.releases: dict[str, ReleaseRecord] = {}
        """Dataflows that come from releases, by name. Each has a share of that name, too."""
        self.memory = Memory()
        try:
            try:
                self._db = self._opened(path)
            except _DAMAGED as error:
                self._move_damaged(error)
                self._db = self._opened(path)
        except DISK_ERRORS as error:
            if spare is None or not path.exists():
                raise ControlError("refused", f"{path} cannot be used: {error}") from None
            self._read_copy(spare, error)
        except (apsw.Error, OSError) as error:
            raise ControlError("refused", f"{path} cannot be used: {error}") from None
        self._read_reserve()

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()

    def note(self, dataflow: str) -> str:
        """Return what an operator should know about the storing of a dataflow's order, or ""."""
        if dataflow in self._lost:
            return (
                "a later order was lost at a reboot, because the disk was full when it came;"
                " repeat it"
            )
        if not {Row("share", dataflow), Row("release", dataflow)} & self._unstored.keys():
            return ""
        if dataflow in self._in_memory:
            return f"its order is in memory only, which a reboot clears: {self.trouble}"
        return f"its order is in {self._reserve.path.name}: {self.trouble}"

    def keep(self, record: ShareRecord) -> None:
        """Store a share, or keep it in memory and in the reserve while the disk is full.

        Raises:
            ControlError: there are too many.
        """
        try:
            self.put(record)
        except ControlError as error:
            if error.code != "unavailable":
                raise
            name = record.order.dataflow
            self.records[name] = record
            self._lost.discard(name)
            self._defer(Row("share", name), msgspec.json.encode(record), error)

    def keep_release(self, record: ReleaseRecord) -> None:
        """Store a dataflow from releases, as `keep` does."""
        try:
            self.put_release(record)
        except ControlError as error:
            if error.code != "unavailable":
                raise
            name = record.order.dataflow
            self.releases[name] = record
            self._lost.discard(name)
            self._defer(Row("release", name), msgspec.json.encode(record), error)

    def flush(self) -> bool:
        """Write what was not stored; return True if something was and nothing is left."""
        if not self.trouble:
            self._make_reserve()
            return False
        try:
            for row, content in list(self._unstored.items()):
                self._write(_PUT[row.table], _values(row, content))
                del self._unstored[row]
        except ControlError as error:
            _log.debug("%d rows are not stored: %s", len(self._unstored), error)
            return False
        _log.info("all orders are stored again")
        self.trouble = ""
        self._in_memory.clear()
        try:
            self._reserve.write({})
        except ReserveError as error:
            _log.warning("the reserve for orders is not emptied: %s", error)
        return True

    def _defer(self, row: Row, content: bytes, error: ControlError) -> None:
        """Keep a row in memory, and in the reserve if that is possible."""
        self.trouble = error.message
        self._unstored[row] = content
        try:
            lost = self._reserve.write(self._unstored)
            self._in_memory = {each.name for each in lost}
        except ReserveError as problem:
            self._in_memory = {each.name for each in self._unstored}
            _log.warning("no reserve for orders: %s", problem)
        where = "in memory only" if row.name in self._in_memory else "in the reserve"
        _log.warning("the %s of %s is %s: %s", row.table, row.name, where, error)

    def _drop(self, row: Row) -> None:
        """Forget a row that was not stored; the reserve must not bring it back."""
        if self._unstored.pop(row, None) is None:
            return
        try:
            self._reserve.write(self._unstored)
        except ReserveError as error:
            _log.warning("the %s of %s stays in the reserve: %s", *row, error)

    def _make_reserve(self) -> None:
        try:
            self._reserve.make()
        except OSError as error:
            _log.debug("no reserve for orders on a full disk: %s", error)

    def _read_reserve(self) -> None:
        """Use the orders that arrived while the disk was full, before this start."""
        try:
            kept = self._reserve.read()
            for row, content in kept.rows.items():
                is_used = self._use(row, content)
                _log.info("the %s of %s was not stored, used now: %s", *row, is_used)
                if is_used:
                    self._unstored[row] = content
        except (ReserveError, msgspec.MsgspecError) as error:
            self.notice = f"orders that came while the disk was full are lost: {error}"
            _log.error("%s", self.notice)
            with contextlib.suppress(ReserveError):  # then it is reported at the next start, too
                self._reserve.write(self._unstored)
            return
        if kept.rows:
            self.trouble = f"{self._path} could not be written"
        self._lost = {row.name for row in kept.lost}
        if self._lost:
            names = ", ".join(sorted(self._lost))
            self.notice = f"orders for {names} came while the disk was full and are lost"
            _log.error("%s", self.notice)
        self._make_reserve()

    def _use(self, row: Row, content: bytes) -> bool:
        """Use a row, unless that of the file is newer: an older dorad knows no reserve."""
        present: ShareRecord | ReleaseRecord | None
        match row.table:
            case "share":
                share = msgspec.json.decode(content, type=ShareRecord)
                present = self.records.get(row.name)
                if present is not None and present.version > share.version:
                    return False
                self.records[row.name] = share
                self._sizes[row.name] = len(content)
            case "release":
                release = msgspec.json.decode(content, type=ReleaseRecord)
                present = self.releases.get(row.name)
                if present is not None and present.version > release.version:
                    return False
                self.releases[row.name] = release
            case "memory":
                memory = msgspec.json.decode(content, type=Memory)
                if self.memory.fleet == memory.fleet and self.memory.epoch > memory.epoch:
                    return False
                self.memory = memory
            case _:
                return False
        return True

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
        self._put(Row("share", name), content)
        self._sizes[name] = len(content)
        self.records[name] = record

    def remove(self, dataflow: str) -> None:
        """Forget a share. Raises ControlError."""
        self._write("DELETE FROM share WHERE dataflow = ?", (dataflow,))
        self._drop(Row("share", dataflow))
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
        self._put(Row("release", name), content)
        self.releases[name] = record

    def remove_release(self, dataflow: str) -> None:
        """Forget a dataflow that came from releases. Raises ControlError."""
        self._write("DELETE FROM release WHERE dataflow = ?", (dataflow,))
        self._drop(Row("release", dataflow))
        self.releases.pop(dataflow, None)

    def remember(self, memory: Memory) -> None:
        """Store what is remembered of coordinators, if it has changed, or keep it, as `keep`."""
        if memory == self.memory:
            return
        row, content = Row("memory", ""), msgspec.json.encode(memory)
        try:
            self._put(row, content)
        except ControlError as error:
            self._defer(row, content, error)
        self.memory = memory

    def _put(self, row: Row, content: bytes) -> None:
        """Write a row. Raises ControlError."""
        self._write(_PUT[row.table], _values(row, content))
        if row.name in self._lost:
            self._lost.discard(row.name)
            with contextlib.suppress(ReserveError):  # then it is reported once more
                self._reserve.write(self._unstored)
        self._unstored.pop(row, None)

    def _write(self, sql: str, values: tuple[str | bytes | int, ...]) -> None:
        try:
            if self._db is None:
                self._db = self._opened(self._path, load=False)
            with self._db:
                self._db.execute(sql, values)
        except apsw.Error as error:
            raise ControlError(
                "unavailable",
                f"{self._path} cannot be written: {error}",
                "see `df` and the journal",
            ) from None

    def _opened(self, path: Path, *, load: bool = True) -> apsw.Connection:
        """Open the file and read all of it."""
        db = apsw.Connection(str(path))
        try:
            db.set_busy_timeout(_BUSY_MS)
            version = db.execute("PRAGMA user_version").get
            if version not in range(_SCHEMA + 1):
                raise ControlError(
                    "version",
                    f"{path} has version {version}, this dorad-agent knows {_SCHEMA}",
                    "install the newer dorad again",
                )
            db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            if version != _SCHEMA:
                _log.debug("%s has schema %s; it gets %d", path, version, _SCHEMA)
                tables = _TABLES_2 if version else f"{_TABLES} {_TABLES_2}"
                with db:
                    db.execute(f"{tables} PRAGMA user_version = {_SCHEMA}")
            db.execute(_TERM_TABLE)
            if load:
                self._load(db)
        except BaseException:
            db.close()
            raise
        return db

    def _read_copy(self, spare: Path, why: apsw.Error) -> None:
        """Read a copy of the file, because the disk has no room for what SQLite needs to open it.

        Raises:
            ControlError: the copy cannot be read either.
        """
        self.trouble = f"{self._path} cannot be written: {why}"
        _log.warning("%s; its content is used", self.trouble)
        try:
            with tempfile.TemporaryDirectory(dir=spare) as folder:
                copy = Path(folder, self._path.name)
                for part in ("", "-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(f"{self._path}{part}", f"{copy}{part}")
                self._opened(copy).close()
        except (apsw.Error, OSError, *_DAMAGED) as error:
            raise ControlError("refused", f"{self.trouble}, and no copy of it: {error}") from None

    def _load(self, db: apsw.Connection) -> None:
        query = (
            "SELECT memory.fleet, memory.epoch, memory.audit, coalesce(term.term, ''), "
            "coalesce(term.authority, memory.fleet), coalesce(term.revocations, '[]') "
            "FROM memory LEFT JOIN term ON (term.fleet, term.epoch) = (memory.fleet, memory.epoch)"
        )
        for fleet, epoch, audit, term, authority, revocations in db.execute(query):
            known = msgspec.json.decode(str(revocations), type=list[Revocation])
            given = {"fleet": fleet, "epoch": epoch, "term": term, "authority": authority}
            self.memory = msgspec.convert({**given, "audit": audit, "revocations": known}, Memory)
        for name, content in db.execute("SELECT dataflow, record FROM share"):
            assert isinstance(name, str)
            assert isinstance(content, bytes)
            self.records[name] = msgspec.json.decode(content, type=ShareRecord)
            self._sizes[name] = len(content)
        for name, content in db.execute("SELECT dataflow, record FROM release"):
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


def _values(row: Row, content: bytes) -> tuple[str | bytes | int, ...]:
    """Return the values of a row for `_PUT`."""
    if row.table == "memory":
        memory = msgspec.json.decode(content, type=Memory)
        revocations = msgspec.json.encode(memory.revocations).decode()
        counted = (memory.fleet, memory.epoch, memory.term, memory.authority, revocations)
        return (memory.fleet, memory.epoch, memory.audit, *counted)
    return row.name, content
