"""The SQLite file of a robot's assignments: its tables, and the files of earlier versions."""

import logging
import os
from pathlib import Path

import apsw
import msgspec
from msgspec.structs import replace

from dorad.agent.assignments.model import Assignment, ReleaseRecord
from dorad.agent.assignments.runs import RunRecord
from dorad.agent.model import Memory
from dorad.agent.reserve import Row
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation

_SCHEMA = 3
_BUSY_MS = 2000
_TABLES = """
CREATE TABLE assignment (dataflow TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_FORMER_RELEASES = "SELECT dataflow, record FROM release"
_MEMORY_TABLE = """
CREATE TABLE memory (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, epoch INTEGER NOT NULL, audit TEXT NOT NULL
) STRICT;
"""
_TERM_TABLE = """
CREATE TABLE IF NOT EXISTS term (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, epoch INTEGER NOT NULL, term TEXT NOT NULL,
    authority TEXT NOT NULL, revocations TEXT NOT NULL
) STRICT;
"""
"""Its row counts while its fleet and epoch are those of `memory`, which versions before it know."""

PUT = {
    "assignment": "INSERT OR REPLACE INTO assignment VALUES (?, ?)",
    "memory": (
        "INSERT OR REPLACE INTO memory VALUES (0, ?, ?, ?);"
        "INSERT OR REPLACE INTO term VALUES (0, ?, ?, ?, ?, ?)"
    ),
}

_log = logging.getLogger(__name__)


def open_file(path: Path) -> apsw.Connection:
    """Open or create the file. One of an earlier version is converted, with a copy beside it.

    Raises:
        ControlError: it was written by a newer version.
        apsw.Error, OSError, MsgspecError: it cannot be used.
    """
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
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if version != _SCHEMA:
            _log.debug("%s has schema %s; it gets %d", path, version, _SCHEMA)
            if version:
                _back_up(path, version)
            with db:
                _convert(db, version)
        db.execute(_TERM_TABLE)
    except BaseException:
        db.close()
        raise
    return db


def read_memory(db: apsw.Connection) -> Memory:
    """Return what is remembered of coordinators. Raises as `open_file`."""
    query = (
        "SELECT memory.fleet, memory.epoch, memory.audit, coalesce(term.term, ''), "
        "coalesce(term.authority, memory.fleet), coalesce(term.revocations, '[]') "
        "FROM memory LEFT JOIN term ON (term.fleet, term.epoch) = (memory.fleet, memory.epoch)"
    )
    memory = Memory()
    for fleet, epoch, audit, term, authority, revocations in db.execute(query):
        known = msgspec.json.decode(str(revocations), type=list[Revocation])
        given = {"fleet": fleet, "epoch": epoch, "term": term, "authority": authority}
        memory = msgspec.convert({**given, "audit": audit, "revocations": known}, Memory)
    return memory


def read_assignments(db: apsw.Connection) -> dict[str, tuple[Assignment, int]]:
    """Return the assignments by the name of the dataflow, each with its bytes; as `open_file`."""
    assignments = {}
    for name, content in db.execute("SELECT dataflow, record FROM assignment"):
        assert isinstance(name, str)
        assert isinstance(content, bytes)
        assignments[name] = (msgspec.json.decode(content, type=Assignment), len(content))
    return assignments


def values_of(row: Row, content: bytes) -> tuple[str | bytes | int, ...]:
    """Return the values of a row for `PUT`."""
    if row.table == "memory":
        memory = msgspec.json.decode(content, type=Memory)
        revocations = msgspec.json.encode(memory.revocations).decode()
        counted = (memory.fleet, memory.epoch, memory.term, memory.authority, revocations)
        return (memory.fleet, memory.epoch, memory.audit, *counted)
    return row.name, content


def _back_up(path: Path, version: int) -> None:
    """Copy a file of an earlier version beside it, unless such a copy is there. Raises apsw.Error.

    A robot can go back to that version by putting the copy in place of the file.
    """
    copy = path.with_name(f"{path.name}.v{version}")
    if copy.exists():
        return
    partial = copy.with_name(f"{copy.name}.new")
    partial.unlink(missing_ok=True)
    db = apsw.Connection(str(path))
    try:
        db.execute("VACUUM INTO ?", (str(partial),))
        with partial.open("rb+") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
        partial.replace(copy)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        db.close()
    _log.info("%s is of an earlier version; %s is a copy of it", path, copy.name)


def _convert(db: apsw.Connection, version: int) -> None:
    """Make the tables; take the shares and releases of earlier versions as assignments."""
    db.execute(_TABLES)
    if version == 0:
        db.execute(_MEMORY_TABLE)
    else:
        assignments: dict[str, Assignment] = {}
        for name, content in db.execute("SELECT dataflow, record FROM share"):
            run = msgspec.json.decode(bytes(content), type=RunRecord)
            assignments[str(name)] = Assignment(run)
        for name, content in db.execute(_FORMER_RELEASES) if version > 1 else ():
            release = msgspec.json.decode(bytes(content), type=ReleaseRecord)
            known = assignments.get(str(name), Assignment(None))
            assignments[str(name)] = replace(known, release=release)
        for name, assignment in assignments.items():
            db.execute(PUT["assignment"], (name, msgspec.json.encode(assignment)))
        db.execute("DROP TABLE share; DROP TABLE IF EXISTS release")
    db.execute(f"PRAGMA user_version = {_SCHEMA}")
