"""The file of shares: what it keeps, what bounds it, and what damages it."""

from __future__ import annotations

import apsw
import msgspec
import pytest

from dorad.agent import store as stores
from dorad.agent.model import ShareRecord
from dorad.agent.store import ShareStore
from dorad.control.errors import ControlError
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
    store.remember("fleet", 7, "head")
    store.close()
    again = ShareStore(path)
    assert again.records == {"flow": record(generation=2)}
    assert (again.fleet, again.epoch, again.audit) == ("fleet", 7, "head")
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


def test_a_file_of_the_version_before_keeps_its_shares_and_gets_releases(path):
    store = ShareStore(path)
    store.put(record())
    store.close()
    database = apsw.Connection(str(path))
    database.execute("DROP TABLE release; PRAGMA user_version = 1")
    database.close()
    upgraded = ShareStore(path)
    assert upgraded.notice == ""
    assert upgraded.records == {"flow": record()}
    upgraded.put_release(releases.record())
    upgraded.close()
