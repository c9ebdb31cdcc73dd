"""The file of shares: what it keeps, what bounds it, and what damages it."""

from __future__ import annotations

import threading

import apsw
import msgspec
import pytest

from dorad.agent import reserve
from dorad.agent import store as stores
from dorad.agent.model import Memory, ShareRecord
from dorad.agent.store import ShareStore
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Revocation
from tests.agent.orders import order
from tests.agent.releases import orders as releases


def record(name="flow", **more):
    return ShareRecord(order=order(dataflow=name, **more), boot="boot-1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shares.db"


def test_it_returns_what_was_stored(path):
    store = ShareStore(path)
    store.put(record())
    store.put(record("other", generation=4))
    store.put(record(generation=2))
    store.remove("other")
    memory = Memory("fleet", 7, "term", "authority", "head", [Revocation(owner="robot a", at=1.5)])
    store.remember(memory)
    store.close()
    again = ShareStore(path)
    assert again.records == {"flow": record(generation=2)}
    assert again.memory == memory
    again.close()


def test_every_change_is_on_the_disk_at_once(path):
    store = ShareStore(path)
    database = apsw.Connection(str(path))
    assert database.execute("PRAGMA journal_mode").get == "wal"
    store.put(record())
    assert database.execute("SELECT count(*) FROM share").get == 1
    database.close()
    store.close()


def test_it_is_bounded(path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_SHARES", 3)
    monkeypatch.setattr(stores, "MAX_BYTES", 4000)
    store = ShareStore(path)
    for number in range(3):
        store.put(record(f"flow{number}"))
    with pytest.raises(ControlError, match="3 shares, the maximum"):
        store.put(record("one-more"))
    store.put(record("flow0", generation=2))
    with pytest.raises(ControlError, match="would exceed 4000 bytes"):
        store.put(record("flow0", descriptor={"x": "y" * 4000}))
    assert store.records["flow0"] == record("flow0", generation=2)
    store.close()


@pytest.mark.parametrize(
    "damage", [None, b"{}", b'{"dataflow": "\xff"}', b'{"x": ' + b"[" * 10_000]
)
def test_a_damaged_file_is_renamed_and_reported(path, damage):
    store = ShareStore(path)
    store.put(record())
    store.close()
    if damage is None:
        path.write_bytes(b"nonsense" * 1000)
    else:
        database = apsw.Connection(str(path))
        database.execute("UPDATE share SET record = ?", (damage,))
        database.close()
    again = ShareStore(path)
    assert again.records == {}
    assert "was damaged" in again.notice
    again.put(record())
    again.close()
    assert len(list(path.parent.glob("shares.db.damaged.*"))) == 1
    last = ShareStore(path)
    assert (last.records, last.notice) == ({"flow": record()}, "")
    last.close()


def test_the_file_of_a_newer_version_is_left_alone(path):
    database = apsw.Connection(str(path))
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ControlError, match="has version 99"):
        ShareStore(path)
    assert path.read_bytes() == before


def test_releases_are_stored_beside_the_shares_and_bounded(path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_RELEASES", 1)
    store = ShareStore(path)
    store.put_release(releases.record())
    with pytest.raises(ControlError, match="the maximum"):
        store.put_release(msgspec.structs.replace(releases.record(), order=other_order()))
    store.close()
    again = ShareStore(path)
    assert again.releases == {"flow": releases.record()}
    again.remove_release("flow")
    again.close()
    empty = ShareStore(path)
    assert empty.releases == {}
    empty.close()


def other_order():
    return msgspec.structs.replace(releases.order(), dataflow="other")


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


@pytest.mark.parametrize(("version", "tables"), [(1, FORMER), (2, FORMER + RELEASES)])
def test_a_file_of_an_earlier_version_keeps_its_content(path, version, tables):
    database = apsw.Connection(str(path))
    database.execute(f"{tables} PRAGMA user_version = {version}")
    content = msgspec.json.encode(record())
    database.execute("INSERT INTO share VALUES ('flow', ?)", (content,))
    database.close()
    upgraded = ShareStore(path)
    assert upgraded.notice == ""
    assert upgraded.records == {"flow": record()}
    # The fleet was that of the authority alone.
    memory = Memory(fleet="fleet", epoch=1796000000123, authority="fleet", audit="head")
    assert upgraded.memory == memory
    upgraded.put_release(releases.record())
    upgraded.remember(msgspec.structs.replace(memory, epoch=1796000000124, term="x"))
    upgraded.close()
    # The version before goes on with it, and back again.
    database = apsw.Connection(str(path))
    assert database.execute("PRAGMA user_version").get == 2
    before = "SELECT fleet, epoch, audit FROM memory"
    assert database.execute(before).fetchall() == [("fleet", 1796000000124, "head")]
    database.execute("INSERT OR REPLACE INTO memory VALUES (0, 'fleet', 1796000000999, 'later')")
    database.close()
    again = ShareStore(path)
    later = Memory(fleet="fleet", epoch=1796000000999, authority="fleet", audit="later")
    assert again.memory == later
    again.close()


# -- A full disk


@pytest.fixture
def disk(monkeypatch):
    """A disk that gets full when `disk.clear()` is called: SQLite refuses then, as it would."""
    room = threading.Event()
    room.set()
    write, open_ = ShareStore._write, apsw.Connection

    def checked(self, sql, values):
        if not room.is_set():
            raise ControlError("unavailable", "the disk is full")
        write(self, sql, values)

    class Opening(open_):
        def execute(self, sql, *more):
            if not room.is_set() and "journal_mode" in sql and "spare" not in self.filename:
                raise apsw.FullError("the disk is full")
            return super().execute(sql, *more)

    monkeypatch.setattr(ShareStore, "_write", checked)
    monkeypatch.setattr(stores.apsw, "Connection", Opening)
    return room


def test_what_is_kept_on_a_full_disk_is_there_after_a_restart_and_stored_later(path, disk):
    store = ShareStore(path)
    store.put(record())
    disk.clear()
    stopped = record(generation=2, enabled=False)
    with pytest.raises(ControlError, match="full"):
        store.put(stopped)
    store.keep(stopped)
    memory = Memory(fleet="fleet", epoch=3, term="x", audit="head")
    store.remember(memory)
    assert store.records == {"flow": stopped}
    assert "its order is in shares.db.reserve: the disk is full" in store.note("flow")
    assert not store.flush()
    store.close()
    spare = path.with_name("spare")
    spare.mkdir()
    again = ShareStore(path, spare)
    assert list(spare.iterdir()) == []
    assert again.records == {"flow": stopped}
    assert again.memory == memory
    assert "shares.db.reserve" in again.note("flow")
    assert not again.flush()
    disk.set()
    assert again.flush()
    assert (again.note("flow"), again.trouble) == ("", "")
    again.close()
    assert reserve.Reserve(path.with_name("shares.db.reserve")).read() == ({}, [])
    last = ShareStore(path)
    assert last.records == {"flow": stopped}
    assert last.memory == memory
    last.close()


def test_an_order_that_has_no_room_in_the_reserve_is_named_after_a_reboot(path, disk):
    store = ShareStore(path)
    disk.clear()
    huge = record("huge", enabled=False, descriptor={"x": "y" * reserve.SIZE})
    store.keep(huge)
    store.keep(record("small", enabled=False))
    assert "in memory only, which a reboot clears" in store.note("huge")
    assert "shares.db.reserve" in store.note("small")
    store.close()
    disk.set()
    again = ShareStore(path)
    assert set(again.records) == {"small"}
    assert "lost at a reboot" in again.note("huge")
    assert "huge" in again.notice
    again.put(record("huge", generation=2))
    assert again.note("huge") == ""
    again.close()


def test_without_a_reserve_orders_are_in_memory_and_say_so(path, disk):
    store = ShareStore(path)
    path.with_name("shares.db.reserve").unlink()
    disk.clear()
    store.keep(record(enabled=False))
    assert "in memory only" in store.note("flow")
    disk.set()
    assert store.flush()
    assert store.note("flow") == ""
    store.close()


def test_a_dataflow_that_is_removed_does_not_come_back_from_the_reserve(path, disk):
    store = ShareStore(path)
    disk.clear()
    store.keep(record(enabled=False))
    disk.set()
    store.remove("flow")
    store.close()
    again = ShareStore(path)
    assert again.records == {}
    again.close()


@pytest.mark.parametrize("damage", [b"\x00" * 7 + b"\x05", b"\xff" * 60])
def test_a_damaged_reserve_is_reported_and_empties_nothing(path, damage):
    store = ShareStore(path)
    store.put(record())
    store.close()
    with path.with_name("shares.db.reserve").open("r+b") as file:
        file.write(damage)
    again = ShareStore(path)
    assert "orders that came while the disk was full are lost" in again.notice
    assert again.records == {"flow": record()}
    again.close()
