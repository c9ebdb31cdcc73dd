"""The SQLite engine: its file, its death, its disk."""

import asyncio
import random
import resource
import stat
import subprocess
import sys

import apsw
import pytest

from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore
from tests.harness.waiting import DEADLINE_S

KILLS = 15


@pytest.mark.long
def test_nothing_acknowledged_is_lost_to_sigkill_and_nothing_is_there_by_half(tmp_path):
    path = tmp_path / "store.db"
    chance = random.Random(5)
    acknowledged = -1
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.fleet.store.writer", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout.read().splitlines():
                acknowledged = int(line)
        asyncio.run(check_numbers(path, acknowledged))


async def check_numbers(path, acknowledged):
    store = await SqliteStore.open(path)
    try:
        entries = (await store.get("n/")).entries
        assert [int(entry.value) for entry in entries] == list(range(len(entries)))
        # The one after it may have been committed and not yet printed.
        assert len(entries) - acknowledged - 1 in (0, 1)
        assert (await store.get("last")).entries[0].value == entries[-1].value
        assert (await store.get("")).revision == len(entries)
    finally:
        await store.close()


async def test_only_this_user_can_read_the_files(tmp_path):
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    try:
        await store.commit(Transaction(puts={"a": b"1"}))
        for each in tmp_path.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
        assert {each.name for each in tmp_path.iterdir()} == {"store.db", "store.db-wal"}
    finally:
        await store.close()


async def test_a_second_process_is_refused_and_leaves_the_first_alone(tmp_path):
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    try:
        await store.commit(Transaction(puts={"last": b"1"}))
        command = [sys.executable, "-m", "tests.fleet.store.writer", path]
        second = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert second.returncode == 1
        assert f"another process uses {path}" in second.stderr
        await store.commit(Transaction(puts={"last": b"2"}))
    finally:
        await store.close()


@pytest.mark.parametrize("damage", ["text", "header", "middle"])
async def test_a_damaged_file_is_refused_and_kept(tmp_path, damage):
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    for number in range(100):
        await store.commit(Transaction(puts={f"k{number}": bytes(1000)}))
    await store.close()
    content = bytearray(path.read_bytes())
    match damage:
        case "text":
            content[:] = b"coordinator: {addr: 10.0.0.1}\n" * 100
        case "header":
            content[:100] = bytes(100)
        case "middle":
            content[4096 * 3 : 4096 * 8] = b"\xff" * 4096 * 5
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await SqliteStore.open(path)
    assert caught.value.code == Code.DAMAGED
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_file_of_another_layout_is_refused(tmp_path):
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE other (a); PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match="layout 7"):
        await SqliteStore.open(path)


async def test_a_path_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "absent/store.db", "link"):
        with pytest.raises(StoreError, match=name):
            await SqliteStore.open(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_full_disk_refuses_a_write_as_a_whole_and_later_ones_work(tmp_path):
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    try:
        revision = await store.commit(Transaction(puts={"a": b"1"}))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(StoreError) as caught:
                await store.commit(Transaction(puts={"a": b"2", "b": bytes(100_000)}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.code == Code.UNAVAILABLE
        assert str(path) in str(caught.value)
        snapshot = await store.get("")
        assert [(e.key, e.value) for e in snapshot.entries] == [("a", b"1")]
        assert snapshot.revision == revision
        assert await store.commit(Transaction(puts={"b": bytes(100_000)})) == revision + 1
    finally:
        await store.close()


async def test_a_cancelled_commit_still_wakes_the_watches(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        start = (await store.get("")).revision + 1
        watch = store.watch("", start)
        arrival = asyncio.ensure_future(anext(watch))
        commit = asyncio.create_task(store.commit(Transaction(puts={"a": b"1"})))
        await asyncio.sleep(0)
        commit.cancel()
        if (await store.get("")).entries:
            async with asyncio.timeout(DEADLINE_S):
                assert (await arrival).values == {"a": b"1"}
        arrival.cancel()
        await asyncio.wait((arrival,))
        await watch.aclose()
    finally:
        await store.close()


async def test_a_history_is_forgotten_on_the_disk_too(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        for _ in range(200):
            last = await store.commit(Transaction(puts={"a": bytes(10_000)}))
        await store.compact(last)
        for _ in range(200):
            await store.commit(Transaction(puts={"a": bytes(10_000)}))
            await store.compact((await store.get("")).revision)
    finally:
        await store.close()
    assert (tmp_path / "store.db").stat().st_size < 3_000_000
