"""A backup fills either engine; a damaged one fills none; revisions never fall."""

import os
import resource
import stat
from pathlib import Path

import pytest

from dorafleet.store.backup import GAP, RESTORED, TERMS, back_up, restore
from dorafleet.store.errors import Code, CompactedError, StoreError
from dorafleet.store.model import LEADER, TERM, Transaction
from dorafleet.store.sqlite import SqliteStore
from tests.fleet.store.engines import opened

FULL = Path("/dev/full")
ENTRIES = {f"key/{number:04}": bytes([number % 256]) * number for number in range(300)}


async def filled(store):
    keys = list(ENTRIES)
    for start in range(0, len(keys), 100):
        batch = keys[start : start + 100]
        await store.commit(Transaction(puts={key: ENTRIES[key] for key in batch}))


async def content(store):
    """Return what is in a store, without its own notes of a restore and of terms."""
    entries = (await store.get("")).entries
    return {entry.key: entry.value for entry in entries if entry.key not in (RESTORED, TERM)}


async def test_a_backup_of_one_engine_restores_into_both_and_revisions_continue(engine, tmp_path):
    path = tmp_path / "backup"
    async with opened(engine, engine.new_place()) as (store,):
        await filled(store)
        async with store.lead("me") as term:
            assert await back_up(store, path) == len(ENTRIES) + 1  # and the number of the term
        last = (await store.get("")).revision
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    place = engine.new_place()
    async with opened(engine, place) as (store,):
        assert await restore(store, path) == len(ENTRIES) + 1
    async with opened(engine, place) as (store,):
        assert await content(store) == ENTRIES
        snapshot = await store.get("")
        assert all(last < entry.version for entry in snapshot.entries)
        assert snapshot.revision >= last
        async with store.lead("me") as later:
            assert later.epoch == term.epoch + TERMS + 1
        with pytest.raises(CompactedError):
            await anext(store.watch("", last))
        version = snapshot.entries[0].version
        assert await store.commit(Transaction({"key/0000": version}, {"a": b""})) > last + GAP

    other = await SqliteStore.open(tmp_path / "other.db")
    try:
        await restore(other, path)
        assert await content(other) == ENTRIES
        # And once more, from the restored one.
        await back_up(other, path)
    finally:
        await other.close()


@pytest.mark.parametrize("clock", [0.0, 1.8e9])
async def test_one_backup_restored_twice_gives_no_revision_twice(tmp_path, monkeypatch, clock):
    path = tmp_path / "backup"
    revisions = []
    for number in range(3):
        now = clock + number * 60.0
        monkeypatch.setattr("dorafleet.store.backup.time.time", lambda now=now: now)
        store = await SqliteStore.open(tmp_path / f"{number}.db")
        try:
            if number:
                await restore(store, path)
            for count in range(10):
                revisions.append(await store.commit(Transaction(puts={"key": bytes([count])})))
            if not number:
                await back_up(store, path)
        finally:
            await store.close()
    assert revisions == sorted(set(revisions))


async def test_a_store_with_content_is_not_restored_into(store, tmp_path):
    path = tmp_path / "backup"
    await store.commit(Transaction(puts={"a": b"1"}))
    await back_up(store, path)
    before = await store.get("")
    with pytest.raises(StoreError) as caught:
        await restore(store, path)
    assert caught.value.code == Code.REFUSED
    assert await store.get("") == before


async def test_any_changed_or_missing_byte_of_a_backup_is_found(tmp_path):
    path = tmp_path / "backup"
    store = await SqliteStore.open(tmp_path / "a.db")
    empty = await SqliteStore.open(tmp_path / "b.db")
    try:
        await store.commit(Transaction(puts={"a": b"1", LEADER: b"x"}))
        assert await back_up(store, path) == 1
        good = path.read_bytes()
        damaged = [good[:end] for end in range(len(good) - 1)]
        for place in range(len(good) - 1):
            damaged.append(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        for each in damaged:
            path.write_bytes(each)
            with pytest.raises(StoreError) as caught:
                await restore(empty, path)
            assert caught.value.code == Code.DAMAGED
        assert await content(empty) == {}
        path.write_bytes(good)
        assert await restore(empty, path) == 1
    finally:
        await store.close()
        await empty.close()


async def test_a_backup_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    path = tmp_path / "backup"
    store = await SqliteStore.open(tmp_path / "a.db")
    try:
        await back_up(store, path)
        before = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, hard))  # like a full disk
        try:
            with pytest.raises(OSError, match="File too large"):
                await back_up(store, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
        assert not list(tmp_path.glob(".backup*"))
    finally:
        await store.close()


async def test_restores_one_after_another_count_on_and_do_not_run_away(tmp_path, monkeypatch):
    """A backup of a restored store that is restored again, and then the first one once more."""
    first, second = tmp_path / "first", tmp_path / "second"
    revisions: list[int] = []

    async def lead(number, source, target):
        now = 1.8e9 + number * 600.0
        monkeypatch.setattr("dorafleet.store.backup.time.time", lambda: now)
        store = await SqliteStore.open(tmp_path / f"{number}.db")
        try:
            if source is not None:
                await restore(store, source)
            async with store.lead("me") as term:
                for count in range(10):
                    puts = {"key": bytes([count])}
                    revisions.append(await store.commit(Transaction(term.compares, puts)))
            if target is not None:
                await back_up(store, target)
            return term.epoch
        finally:
            await store.close()

    terms = [
        await lead(0, None, first),
        await lead(1, first, second),
        await lead(2, second, None),
        await lead(3, first, None),
    ]
    assert revisions == sorted(set(revisions))
    assert terms == [1, 2 + TERMS, 3 + 2 * TERMS, 2 + TERMS]


async def test_a_backup_with_a_damaged_number_of_the_term_is_refused(tmp_path):
    path = tmp_path / "backup"
    store = await SqliteStore.open(tmp_path / "a.db")
    empty = await SqliteStore.open(tmp_path / "b.db")
    try:
        for wrong in (b"", b"x", b"-1", b"0", b"9" * 30, "\u0661".encode()):
            await store.commit(Transaction(puts={TERM: wrong}))
            await back_up(store, path)
            with pytest.raises(StoreError, match=r"`term` in .* is damaged"):
                await restore(empty, path)
            with pytest.raises(StoreError, match=r"`term` in .* is damaged"):
                async with store.lead("me"):
                    pass
    finally:
        await store.close()
        await empty.close()


async def test_a_backup_replaces_an_earlier_backup_and_nothing_else(tmp_path):
    store = await SqliteStore.open(tmp_path / "coordinator.db")
    try:
        await store.commit(Transaction(puts={"a": b"1"}))
        (tmp_path / "token").write_text("secret")
        (tmp_path / "empty").touch()
        (tmp_path / "link").symlink_to(tmp_path / "token")
        (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "pipe")
        names = (
            "coordinator.db",
            "coordinator.db-wal",
            "token",
            "empty",
            "link",
            "dangling",
            "pipe",
        )
        before = {name: (tmp_path / name).lstat() for name in names}
        for name in names:
            with pytest.raises(StoreError, match="is not a backup, so it is not replaced"):
                await back_up(store, tmp_path / name)
        with pytest.raises(StoreError, match="is not a backup"):
            await back_up(store, FULL)
        assert {name: (tmp_path / name).lstat() for name in names} == before
        assert not (tmp_path / "nothing").exists()
        assert FULL.is_char_device()  # noqa: ASYNC240
        await store.commit(Transaction(puts={"a": b"2"}))
        for _ in range(2):
            assert await back_up(store, tmp_path / "backup") == 1
    finally:
        await store.close()
