"""What every engine does: snapshots, transactions, watches, compaction."""

import asyncio
from contextlib import aclosing

import pytest

from dorafleet.store.errors import CompactedError, ConflictError, StoreError
from dorafleet.store.model import MAX_BYTES, MAX_OPERATIONS, Changes, Entry, Transaction
from tests.fleet.store.engines import opened
from tests.harness.waiting import DEADLINE_S


async def put(store, **values):
    return await store.commit(Transaction(puts={k: v.encode() for k, v in values.items()}))


async def collect(store, prefix, start, count):
    found = []
    async with asyncio.timeout(DEADLINE_S), aclosing(store.watch(prefix, start)) as changes:
        async for each in changes:
            found.append(each)
            if len(found) == count:
                return found
    raise AssertionError("the watch ended by itself")


async def test_a_transaction_changes_all_its_keys_at_one_revision(store):
    first = await put(store, a="1", b="2")
    second = await store.commit(Transaction(puts={"b": b"3", "c": b""}, deletes=("a",)))
    assert second == first + 1
    snapshot = await store.get("")
    assert snapshot.revision == second
    assert snapshot.entries == (Entry("b", b"3", second), Entry("c", b"", second))


async def test_a_prefix_selects_keys_and_pages_continue_after_a_key(store):
    await store.commit(Transaction(puts={f"a/{n}": b"" for n in range(5)} | {"a": b"", "b/1": b""}))
    found = await store.get("a/", limit=2)
    assert [entry.key for entry in found.entries] == ["a/0", "a/1"]
    rest = await store.get("a/", after="a/1")
    assert [entry.key for entry in rest.entries] == ["a/2", "a/3", "a/4"]
    assert (await store.get("a/", after="a/4")).entries == ()
    assert (await store.get("a/", after="z")).entries == ()
    assert len((await store.get("a/", after="A")).entries) == 5


async def test_a_comparison_that_fails_leaves_everything_and_names_the_versions(store):
    version = await put(store, a="1")
    with pytest.raises(ConflictError) as caught:
        await store.commit(
            Transaction(compares={"a": version - 1, "b": 0, "c": 7}, puts={"a": b"2", "d": b""})
        )
    assert caught.value.found == {"a": version, "c": 0}
    assert (await store.get("")).entries == (Entry("a", b"1", version),)
    assert (await store.get("")).revision == version


async def test_of_two_writers_with_the_same_version_one_wins(engine):
    async with opened(engine, engine.new_place(), rivals=1) as (one, two):
        version = await put(one, a="0")

        async def replace(store, value):
            await store.commit(Transaction(compares={"a": version}, puts={"a": value}))

        results = await asyncio.gather(
            replace(one, b"one"), replace(two, b"two"), return_exceptions=True
        )
        assert [type(each) for each in results].count(ConflictError) == 1
        winner = (b"one", b"two")[results.index(None)]
        assert (await one.get("a")).entries[0].value == winner


async def test_a_transaction_that_changes_nothing_takes_no_revision(store):
    revision = await put(store, a="1")
    assert await store.commit(Transaction(deletes=("absent",))) == revision
    assert await store.commit(Transaction(compares={"a": revision})) == revision


async def test_a_watch_yields_the_past_then_what_happens_in_order_by_transaction(store):
    first = await put(store, **{"x/a": "1", "x/b": "2", "y": "3"})
    watching = asyncio.create_task(collect(store, "x/", first, 3))
    second = await store.commit(Transaction(puts={"x/c": b"4"}, deletes=("x/a", "x/absent")))
    await put(store, y="5")
    third = await put(store, **{"x/b": "6"})
    assert await watching == [
        Changes(first, {"x/a": b"1", "x/b": b"2"}),
        Changes(second, {"x/c": b"4", "x/a": None}),
        Changes(third, {"x/b": b"6"}),
    ]


async def test_a_watch_from_the_future_starts_there(store):
    now = await put(store, a="1")
    watching = asyncio.create_task(collect(store, "", now + 2, 1))
    await put(store, a="2")
    last = await put(store, a="3")
    assert await watching == [Changes(last, {"a": b"3"})]


async def test_many_watches_all_get_everything(store):
    start = await put(store, a="0")
    watching = [asyncio.create_task(collect(store, "a", start + 1, 300)) for _ in range(5)]
    revisions = [await put(store, a=str(number)) for number in range(300)]
    for found in await asyncio.gather(*watching):
        assert [each.revision for each in found] == revisions


async def test_a_watch_of_forgotten_changes_fails_and_a_later_one_works(store):
    first = await put(store, a="1")
    for number in range(5):
        last = await put(store, a=str(number))
    await store.compact(last - 1)
    await store.compact(first)
    with pytest.raises(CompactedError):
        await collect(store, "", first, 1)
    assert await collect(store, "", last, 1) == [Changes(last, {"a": b"4"})]
    await store.compact(last + 1000)
    after = await put(store, b="1")
    assert await collect(store, "", last + 1, 1) == [Changes(after, {"b": b"1"})]


async def test_closing_ends_watches_and_further_use_with_an_error(engine):
    async with opened(engine, engine.new_place()) as (store,):
        start = await put(store, a="1")
        watching = asyncio.create_task(collect(store, "", start, 2))
        await collect(store, "", start, 1)
        await store.close()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(StoreError):
                await watching
        with pytest.raises(StoreError):
            await put(store, a="2")


async def test_content_and_versions_survive_reopening(engine):
    place = engine.new_place()
    async with opened(engine, place) as (store,):
        version = await put(store, a="1")
    async with opened(engine, place) as (store,):
        assert (await store.get("")).entries == (Entry("a", b"1", version),)
        assert await put(store, a="2") > version
        assert (await collect(store, "a", version, 1))[0].values == {"a": b"1"}


async def test_a_transaction_at_the_limits_works_and_above_them_is_refused(store):
    share = MAX_BYTES // MAX_OPERATIONS
    keys = [f"{number:08}" for number in range(MAX_OPERATIONS)]
    puts = {key: bytes(share - len(key)) for key in keys}
    await store.commit(Transaction(compares=dict.fromkeys(keys, 0), puts=puts))
    assert len((await store.get("")).entries) == MAX_OPERATIONS
    for wrong in (
        {"puts": puts | {"more": b""}},
        {"puts": {"a": bytes(MAX_BYTES)}},
        {"compares": dict.fromkeys([*keys, "more"], 0)},
        {"puts": {"a": b""}, "deletes": ("a",)},
        {"deletes": ("a", "a")},
        {"puts": {"": b""}},
        {"puts": {"a b": b""}},
        {"puts": {"é": b""}},
        {"puts": {"a" * 513: b""}},
    ):
        with pytest.raises(StoreError):
            Transaction(**wrong)


async def test_all_keys_sort_as_bytes_and_any_value_comes_back(store):
    keys = sorted(chr(number) for number in range(0x21, 0x7F))
    value = bytes(range(256))
    await store.commit(Transaction(puts=dict.fromkeys(keys, value)))
    entries = (await store.get("")).entries
    assert [entry.key for entry in entries] == keys
    assert {entry.value for entry in entries} == {value}
    assert [entry.key for entry in (await store.get("~")).entries] == ["~"]
