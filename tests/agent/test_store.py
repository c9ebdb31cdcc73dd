"""The file of assignments: what it keeps, what bounds it, and what damages it."""

import threading
from contextlib import suppress

import apsw
import msgspec
import pytest

from dorad.agent import reserve
from dorad.agent import store as stores
from dorad.agent.assignments.model import Assignment
from dorad.agent.assignments.runs import RunRecord
from dorad.agent.model import Memory
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation
from tests.agent.assignments import orders as releases
from tests.agent.orders import order


def record(name="flow", **more):
    return Assignment(RunRecord(order=order(dataflow=name, **more), boot="boot-1"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shares.db"


def test_it_returns_what_was_stored(path):
    store = AssignmentStore(path)
    store.put(record())
    store.put(record("other", generation=4))
    store.put(record(generation=2))
    store.remove("other")
    memory = Memory("fleet", 7, "term", "authority", "head", [Revocation(owner="robot a", at=1.5)])
    store.remember(memory)
    store.close()
    again = AssignmentStore(path)
    assert again.assignments == {"flow": record(generation=2)}
    assert again.memory == memory
    again.close()


def test_every_change_is_on_the_disk_at_once(path):
    store = AssignmentStore(path)
    database = apsw.Connection(str(path))
    assert database.execute("PRAGMA journal_mode").get == "wal"
    store.put(record())
    assert database.execute("SELECT count(*) FROM assignment").get == 1
    database.close()
    store.close()


def test_it_is_bounded(path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_ASSIGNMENTS", 3)
    monkeypatch.setattr(stores, "MAX_BYTES", 4000)
    store = AssignmentStore(path)
    for number in range(3):
        store.put(record(f"flow{number}"))
    with pytest.raises(ControlError, match="3 dataflows, the maximum"):
        store.put(record("one-more"))
    store.put(record("flow0", generation=2))
    with pytest.raises(ControlError, match="would exceed 4000 bytes"):
        store.put(record("flow0", descriptor={"x": "y" * 4000}))
    assert store.assignments["flow0"] == record("flow0", generation=2)
    store.close()


@pytest.mark.parametrize(
    "damage", [None, b"{}", b'{"dataflow": "\xff"}', b'{"x": ' + b"[" * 10_000]
)
def test_a_damaged_file_is_renamed_and_reported(path, damage):
    store = AssignmentStore(path)
    store.put(record())
    store.close()
    if damage is None:
        path.write_bytes(b"nonsense" * 1000)
    else:
        database = apsw.Connection(str(path))
        database.execute("UPDATE assignment SET record = ?", (damage,))
        database.close()
    again = AssignmentStore(path)
    assert again.assignments == {}
    assert "was damaged" in again.notice
    again.put(record())
    again.close()
    assert len(list(path.parent.glob("shares.db.damaged.*"))) == 1
    last = AssignmentStore(path)
    assert (last.assignments, last.notice) == ({"flow": record()}, "")
    last.close()


def test_the_file_of_a_newer_version_is_left_alone(path):
    database = apsw.Connection(str(path))
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ControlError, match="has version 99"):
        AssignmentStore(path)
    assert path.read_bytes() == before


def test_a_release_is_stored_with_its_run_and_bounded(path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_RELEASES", 1)
    store = AssignmentStore(path)
    store.put(record())
    store.put(both())
    other = msgspec.structs.replace(releases.order(), dataflow="other")
    with pytest.raises(ControlError, match="1 dataflows from releases, the maximum"):
        store.put(Assignment(None, releases.record(other)))
    store.close()
    again = AssignmentStore(path)
    assert again.assignments == {"flow": both()}
    again.remove("flow")
    again.close()
    empty = AssignmentStore(path)
    assert empty.assignments == {}
    empty.close()


def both():
    return msgspec.structs.replace(record(epoch=0), release=releases.record(step=1))


FORMER = """
CREATE TABLE share (dataflow TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE memory (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, epoch INTEGER NOT NULL, audit TEXT NOT NULL
) STRICT;
INSERT INTO memory VALUES (0, 'fleet', 1796000000123, 'head');
"""
RELEASES = """
CREATE TABLE release (dataflow TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


def make_former(path, version, shares=(), own=()):
    """Write a file as an earlier version has left it."""
    database = apsw.Connection(str(path))
    tables = FORMER if version == 1 else FORMER + RELEASES
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"{tables} PRAGMA user_version = {version}")
    for table, records in (("share", shares), ("release", own)):
        for each in records:
            values = (each.order.dataflow, msgspec.json.encode(each))
            database.execute(f"INSERT INTO {table} VALUES (?, ?)", values)
    database.close()


NEW = msgspec.structs.replace(releases.order(), dataflow="new")


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_earlier_version_is_converted_and_a_copy_kept(path, version):
    own = () if version == 1 else (both().release, releases.record(NEW))
    make_former(path, version, [both().run, record("inline").run], own)
    upgraded = AssignmentStore(path)
    assert upgraded.notice == ""
    flow = both() if own else record(epoch=0)
    expected = {"flow": flow, "inline": record("inline")}
    if version == 2:
        expected["new"] = Assignment(None, releases.record(NEW))
    assert upgraded.assignments == expected
    # The fleet was that of the authority alone.
    memory = Memory(fleet="fleet", epoch=1796000000123, authority="fleet", audit="head")
    assert upgraded.memory == memory
    upgraded.close()
    again = AssignmentStore(path)
    assert (again.assignments, again.memory) == (expected, memory)
    again.close()
    # An earlier version refuses the new file; it can go on with the copy.
    assert apsw.Connection(str(path)).execute("PRAGMA user_version").get == 3
    copy = path.with_name(f"shares.db.v{version}")
    assert copy.stat().st_mode & 0o777 == 0o600
    database = apsw.Connection(str(copy))
    assert database.execute("PRAGMA user_version").get == version
    assert database.execute("SELECT count(*) FROM share").get == 2
    database.close()
    assert list(path.parent.glob("*.new")) == []


@pytest.mark.parametrize("moment", range(6))
def test_a_power_cut_while_a_file_is_converted_loses_nothing(path, monkeypatch, moment):
    """The process ends before each statement in turn; the next start converts it all."""
    make_former(path, 2, [both().run, record("inline").run], [both().release])
    count = iter(range(100))

    class Cut(BaseException):
        pass

    class Cutting(apsw.Connection):
        def execute(self, sql, *more):
            if next(count) == moment + 4:
                raise Cut
            return super().execute(sql, *more)

    with monkeypatch.context() as patch:
        patch.setattr(stores.apsw, "Connection", Cutting)
        with suppress(Cut):
            AssignmentStore(path).close()
    again = AssignmentStore(path)
    assert again.assignments == {"flow": both(), "inline": record("inline")}
    again.close()


# -- A full disk


@pytest.fixture
def disk(monkeypatch):
    """A disk that gets full when `disk.clear()` is called: SQLite refuses then, as it would."""
    room = threading.Event()
    room.set()
    write, open_ = AssignmentStore._write, apsw.Connection

    def checked(self, sql, values):
        if not room.is_set():
            raise ControlError("unavailable", "the disk is full")
        write(self, sql, values)

    class Opening(open_):
        def execute(self, sql, *more):
            if not room.is_set() and "journal_mode" in sql and "spare" not in self.filename:
                raise apsw.FullError("the disk is full")
            return super().execute(sql, *more)

    monkeypatch.setattr(AssignmentStore, "_write", checked)
    monkeypatch.setattr(stores.apsw, "Connection", Opening)
    return room


def test_what_is_kept_on_a_full_disk_is_there_after_a_restart_and_stored_later(path, disk):
    store = AssignmentStore(path)
    store.put(record())
    disk.clear()
    stopped = record(generation=2, enabled=False)
    with pytest.raises(ControlError, match="full"):
        store.put(stopped)
    store.keep(stopped)
    memory = Memory(fleet="fleet", epoch=3, term="x", audit="head")
    store.remember(memory)
    assert store.assignments == {"flow": stopped}
    assert "its order is in shares.db.reserve: the disk is full" in store.note("flow")
    assert not store.flush()
    store.close()
    spare = path.with_name("spare")
    spare.mkdir()
    again = AssignmentStore(path, spare)
    assert list(spare.iterdir()) == []
    assert again.assignments == {"flow": stopped}
    assert again.memory == memory
    assert "shares.db.reserve" in again.note("flow")
    assert not again.flush()
    disk.set()
    assert again.flush()
    assert (again.note("flow"), again.trouble) == ("", "")
    again.close()
    assert reserve.Reserve(path.with_name("shares.db.reserve")).read() == ({}, [])
    last = AssignmentStore(path)
    assert last.assignments == {"flow": stopped}
    assert last.memory == memory
    last.close()


def test_an_order_that_has_no_room_in_the_reserve_is_named_after_a_reboot(path, disk):
    store = AssignmentStore(path)
    disk.clear()
    huge = record("huge", enabled=False, descriptor={"x": "y" * reserve.SIZE})
    store.keep(huge)
    store.keep(record("small", enabled=False))
    assert "in memory only, which a reboot clears" in store.note("huge")
    assert "shares.db.reserve" in store.note("small")
    store.close()
    disk.set()
    again = AssignmentStore(path)
    assert set(again.assignments) == {"small"}
    assert "lost at a reboot" in again.note("huge")
    assert "huge" in again.notice
    again.put(record("huge", generation=2))
    assert again.note("huge") == ""
    again.close()


def test_without_a_reserve_orders_are_in_memory_and_say_so(path, disk):
    store = AssignmentStore(path)
    path.with_name("shares.db.reserve").unlink()
    disk.clear()
    store.keep(record(enabled=False))
    assert "in memory only" in store.note("flow")
    disk.set()
    assert store.flush()
    assert store.note("flow") == ""
    store.close()


def test_what_is_held_on_a_full_disk_is_bounded_as_ever(path, disk, monkeypatch):
    size = len(msgspec.json.encode(record("flow0", enabled=False)))
    monkeypatch.setattr(stores, "MAX_BYTES", 3 * size)
    store = AssignmentStore(path)
    disk.clear()
    for number in range(3):
        store.keep(record(f"flow{number}", enabled=False))
    held = dict(store.assignments)
    with pytest.raises(ControlError, match="would exceed"):
        store.keep(record("flow3", enabled=False))
    with pytest.raises(ControlError, match="would exceed"):
        store.keep(record("flow0", enabled=False, descriptor={"x": "y" * size}))
    assert store.assignments == held
    store.close()
    spare = path.with_name("spare")
    spare.mkdir()
    again = AssignmentStore(path, spare)
    assert again.assignments == held
    with pytest.raises(ControlError, match="would exceed"):
        again.keep(record("flow3", enabled=False))
    disk.set()
    assert again.flush()
    again.remove("flow1")
    again.keep(record("flow3", enabled=False))
    assert set(again.assignments) == {"flow0", "flow2", "flow3"}
    again.close()


def test_a_dataflow_that_is_removed_does_not_come_back_from_the_reserve(path, disk):
    store = AssignmentStore(path)
    disk.clear()
    store.keep(record(enabled=False))
    disk.set()
    store.remove("flow")
    store.close()
    again = AssignmentStore(path)
    assert again.assignments == {}
    again.close()


@pytest.mark.parametrize("damage", [b"\x00" * 7 + b"\x05", b"\xff" * 60])
def test_a_damaged_reserve_is_reported_and_empties_nothing(path, damage):
    store = AssignmentStore(path)
    store.put(record())
    store.close()
    with path.with_name("shares.db.reserve").open("r+b") as file:
        file.write(damage)
    again = AssignmentStore(path)
    assert "orders that came while the disk was full are lost" in again.notice
    assert again.assignments == {"flow": record()}
    again.close()


def test_orders_that_an_earlier_version_has_left_in_the_reserve_are_used(path, disk):
    """They were a share and a release; both are newer than those of the file."""
    make_former(path, 2, [both().run, record("inline").run], [both().release])
    release = releases.record(releases.order(generation=3), step=4)
    run = record(generation=4, epoch=0).run
    stopped = record("inline", generation=2, enabled=False)
    kept = reserve.Reserve(path.with_name("shares.db.reserve"))
    kept.make()
    rows = {("share", "flow"): run, ("release", "flow"): release, ("share", "inline"): stopped.run}
    kept.write({reserve.Row(*row): msgspec.json.encode(each) for row, each in rows.items()})
    disk.clear()
    spare = path.with_name("spare")
    spare.mkdir()
    store = AssignmentStore(path, spare)
    expected = {"flow": Assignment(run, release), "inline": stopped}
    assert store.assignments == expected
    assert "its order is in shares.db.reserve" in store.note("flow")
    disk.set()
    assert store.flush()
    store.close()
    assert kept.read() == ({}, [])
    last = AssignmentStore(path)
    assert last.assignments == expected
    last.close()
