"""The assignments of a robot and its last coordinator, in a SQLite file.

Each change is on the disk when its method returns, except those of `keep` and `remember`: what must
be obeyed at once is obeyed on a full disk, too. It is in memory and in the reserve until there is
room.
"""

import contextlib
import logging
import shutil
import tempfile
import time
from pathlib import Path

import apsw
import msgspec
from msgspec.structs import replace

from dorad.agent.assignments.model import Assignment, ReleaseRecord
from dorad.agent.assignments.runs import RunRecord
from dorad.agent.model import Memory
from dorad.agent.reserve import Reserve, ReserveError, Row
from dorad.agent.storefile import PUT, open_file, read_assignments, read_memory, values_of
from dorad.control.errors import ControlError
from dorad.sqliteerrors import DISK_ERRORS

MAX_ASSIGNMENTS = 200
"""Maximum number of dataflows of one robot."""
MAX_BYTES = 64 << 20
"""Maximum size of all assignments together."""

MAX_RELEASES = 50
"""Maximum number of dataflows of one robot that come from releases."""

_DAMAGED = (apsw.CorruptError, apsw.NotADBError, msgspec.MsgspecError, UnicodeError, RecursionError)

_log = logging.getLogger(__name__)


class AssignmentStore:
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
        self.assignments: dict[str, Assignment] = {}
        """By the name of the dataflow."""
        self.memory = Memory()
        try:
            try:
                self._db = self._opened()
            except _DAMAGED as error:
                self._move_damaged(error)
                self._db = self._opened()
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
        if Row("assignment", dataflow) not in self._unstored:
            return ""
        if dataflow in self._in_memory:
            return f"its order is in memory only, which a reboot clears: {self.trouble}"
        return f"its order is in {self._reserve.path.name}: {self.trouble}"

    @property
    def runs(self) -> dict[str, RunRecord]:
        """The runs that dorad is asked for, by the name of the dataflow."""
        return {name: run for name, each in self.assignments.items() if (run := each.run)}

    @property
    def releases(self) -> dict[str, ReleaseRecord]:
        """What is known of the dataflows that come from releases, by name."""
        return {name: own for name, each in self.assignments.items() if (own := each.release)}

    def keep(self, assignment: Assignment) -> None:
        """Store an assignment, or keep it in memory and in the reserve while the disk is full.

        Raises:
            ControlError: there are too many.
        """
        content = self._checked(assignment)
        if content is None:
            return
        row = Row("assignment", assignment.dataflow)
        try:
            self._put(row, content)
        except ControlError as error:
            self._lost.discard(row.name)
            self._defer(row, content, error)
        self._hold(assignment, len(content))

    def run(self, dataflow: str) -> RunRecord | None:
        """Return the run of an assignment."""
        return self.assignments.get(dataflow, Assignment(None)).run

    def keep_run(self, run: RunRecord) -> None:
        """Keep how far the run of an assignment has come."""
        self.keep(replace(self.assignments[run.order.dataflow], run=run))

    def flush(self) -> bool:
        """Write what was not stored; return True if something was and nothing is left."""
        if not self.trouble:
            self._make_reserve()
            return False
        try:
            for row, content in list(self._unstored.items()):
                self._write(PUT[row.table], values_of(row, content))
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
                if is_used and row.table == "memory":
                    self._unstored[row] = content
                elif is_used:
                    whole = msgspec.json.encode(self.assignments[row.name])
                    self._unstored[Row("assignment", row.name)] = whole
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
        if row.table == "memory":
            memory = msgspec.json.decode(content, type=Memory)
            if self.memory.fleet == memory.fleet and self.memory.epoch > memory.epoch:
                return False
            self.memory = memory
            return True
        present = self.assignments.get(row.name, Assignment(None))
        known: Assignment | RunRecord | ReleaseRecord | None
        kept: Assignment | RunRecord | ReleaseRecord
        match row.table:
            case "assignment":
                kept = assignment = msgspec.json.decode(content, type=Assignment)
                known = self.assignments.get(row.name)
            case "share":  # as versions before have written it
                kept = run = msgspec.json.decode(content, type=RunRecord)
                known, assignment = present.run, replace(present, run=run)
            case "release":
                kept = release = msgspec.json.decode(content, type=ReleaseRecord)
                known, assignment = present.release, replace(present, release=release)
            case _:
                return False
        if known is not None and known.version > kept.version:
            return False
        self._hold(assignment, len(msgspec.json.encode(assignment)))
        return True

    def put(self, assignment: Assignment) -> None:
        """Store an assignment, if it has changed.

        Raises:
            ControlError: there are too many, or the disk cannot be written.
        """
        content = self._checked(assignment)
        if content is not None:
            self._put(Row("assignment", assignment.dataflow), content)
            self._hold(assignment, len(content))

    def _checked(self, assignment: Assignment) -> bytes | None:
        """Return what is to be stored of an assignment, or None if it has not changed.

        Raises:
            ControlError: there are too many.
        """
        name = assignment.dataflow
        present = self.assignments.get(name)
        if assignment == present:
            return None
        content = msgspec.json.encode(assignment)
        others = sum(size for other, size in self._sizes.items() if other != name)
        if present is None and len(self.assignments) >= MAX_ASSIGNMENTS:
            raise ControlError(
                "busy",
                f"this robot has {MAX_ASSIGNMENTS} dataflows, the maximum",
                "remove some of them",
            )
        is_new = assignment.release is not None and (present is None or present.release is None)
        if is_new and len(self.releases) >= MAX_RELEASES:
            raise ControlError(
                "busy",
                f"this robot has {MAX_RELEASES} dataflows from releases, the maximum",
                "remove some of them",
            )
        if others + len(content) > MAX_BYTES:
            raise ControlError(
                "too-large", f"the dataflows of this robot would exceed {MAX_BYTES} bytes"
            )
        return content

    def _hold(self, assignment: Assignment, size: int) -> None:
        """Hold an assignment in memory, and count its size."""
        self.assignments[assignment.dataflow] = assignment
        self._sizes[assignment.dataflow] = size

    def remove(self, dataflow: str) -> None:
        """Forget an assignment. Raises ControlError."""
        self._write("DELETE FROM assignment WHERE dataflow = ?", (dataflow,))
        self._drop(Row("assignment", dataflow))
        self._sizes.pop(dataflow, None)
        self.assignments.pop(dataflow, None)

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
        self._write(PUT[row.table], values_of(row, content))
        if row.name in self._lost:
            self._lost.discard(row.name)
            with contextlib.suppress(ReserveError):  # then it is reported once more
                self._reserve.write(self._unstored)
        self._unstored.pop(row, None)

    def _write(self, sql: str, values: tuple[str | bytes | int, ...]) -> None:
        try:
            if self._db is None:
                self._db = open_file(self._path)
            with self._db:
                self._db.execute(sql, values)
        except apsw.Error as error:
            raise ControlError(
                "unavailable",
                f"{self._path} cannot be written: {error}",
                "see `df` and the journal",
            ) from None

    def _opened(self) -> apsw.Connection:
        """Open the file and read all of it."""
        db = open_file(self._path)
        try:
            self._load(db)
        except BaseException:
            db.close()
            raise
        return db

    def _load(self, db: apsw.Connection) -> None:
        self.memory = read_memory(db)
        for assignment, size in read_assignments(db).values():
            self._hold(assignment, size)

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
                with contextlib.closing(open_file(copy)) as db:
                    self._load(db)
        except (apsw.Error, OSError, *_DAMAGED) as error:
            raise ControlError("refused", f"{self.trouble}, and no copy of it: {error}") from None

    def _move_damaged(self, why: Exception) -> None:
        kept = self._path.with_name(f"{self._path.name}.damaged.{int(time.time())}")
        self.notice = f"{self._path} was damaged ({why}); it is kept as {kept.name}"
        _log.error("%s", self.notice)
        self._path.rename(kept)
        for part in ("-wal", "-shm"):
            Path(f"{self._path}{part}").unlink(missing_ok=True)
        self._sizes.clear()
        self.assignments.clear()
        self.memory = Memory()
