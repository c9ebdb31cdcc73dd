"""One leads, with an epoch that grows; a former leader can write nothing more."""

import asyncio

import pytest

from dorafleet.store.errors import ConflictError, StoreError
from dorafleet.store.model import LEADER, TERM, Transaction
from tests.fleet.store.engines import opened
from tests.harness.waiting import DEADLINE_S, until

LEASE_S = 2.0
"""The shortest that etcd grants."""


async def test_the_second_leads_when_the_first_has_ended_and_with_a_higher_epoch(engine):
    async with opened(engine, engine.new_place(), rivals=1) as (one, two):
        led: list[tuple[str, int]] = []

        async def lead(store, name, enough):
            async with store.lead(name) as term:
                led.append((name, term.epoch))
                assert [e.value for e in (await store.get(LEADER)).entries] == [name.encode()]
                await enough.wait()

        first, second = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(lead(one, "one", first))
            await until(lambda: led)
            tasks.create_task(lead(two, "two", second))
            for _ in range(10):
                assert len((await one.get(LEADER)).entries) == 1
            assert [name for name, _ in led] == ["one"]
            first.set()
            await until(lambda: len(led) == 2)
            second.set()
        assert [name for name, _ in led] == ["one", "two"]
        assert led[0][1] < led[1][1]
        assert (await one.get(LEADER)).entries == ()


async def test_a_former_leader_can_write_nothing(engine):
    async with opened(engine, engine.new_place(), rivals=1) as (one, two):
        async with one.lead("one") as former:
            await one.commit(Transaction(former.compares, {"a": b"1"}))
        async with two.lead("two") as term:
            with pytest.raises(ConflictError):
                await one.commit(Transaction(former.compares, {"a": b"2"}))
            await two.commit(Transaction(term.compares, {"a": b"3"}))
        assert (await two.get("a")).entries[0].value == b"3"


async def test_the_epoch_grows_over_reopening(engine):
    place = engine.new_place()
    epochs = []
    for _ in range(3):
        async with opened(engine, place) as (store,), store.lead("me") as term:
            epochs.append(term.epoch)
    assert epochs == sorted(set(epochs))


async def test_terms_are_counted_and_do_not_grow_with_what_is_written(engine):
    place = engine.new_place()
    terms = []
    for _ in range(3):
        async with opened(engine, place) as (store,), store.lead("me") as term:
            terms.append(term.epoch)
            for number in range(5):
                await store.commit(Transaction(term.compares, {"a": bytes([number])}))
    assert terms == [1, 2, 3]


async def test_a_store_from_before_terms_were_counted_continues_above_its_revision(engine):
    """The number of a term was the version of the leader's key there."""
    place = engine.new_place()
    async with opened(engine, place) as (store,):
        former = await store.commit(Transaction(puts={LEADER: b"former"}))
        last = await store.commit(Transaction(puts={"a": b"1"}, deletes=[LEADER]))
    async with opened(engine, place) as (store,):
        async with store.lead("me") as term:
            assert term.epoch > last > former
        async with store.lead("me") as second:
            assert second.epoch == term.epoch + 1


async def test_a_name_that_only_starts_like_the_leaders_key_does_not_keep_others_from_leading(
    engine,
):
    async with opened(engine, engine.new_place()) as (store,), asyncio.timeout(DEADLINE_S):
        await store.commit(Transaction(puts={f"{LEADER}-not": b"", f"{TERM}-not": b"x"}))
        async with store.lead("me") as term:
            assert term.epoch > 0


@pytest.mark.parametrize("server", ["etcd"], indirect=True)
async def test_a_leader_that_falls_silent_is_replaced_after_its_lease(engine):
    place = engine.new_place()
    async with opened(engine, place, rivals=1) as (one, two), asyncio.timeout(DEADLINE_S):
        async with one.lead("one", lease=LEASE_S) as former:
            await one.close()  # its renewals of the lease fail from now on
            async with two.lead("two", lease=LEASE_S) as term:
                assert term.epoch > former.epoch
                await former.lost.wait()
                assert not term.lost.is_set()


@pytest.mark.parametrize("server", ["etcd"], indirect=True)
async def test_a_leader_keeps_its_place_beyond_its_lease(engine):
    async with opened(engine, engine.new_place()) as (store,):
        async with store.lead("me", lease=LEASE_S) as term:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * LEASE_S):
                    await term.lost.wait()
            await store.commit(Transaction(term.compares, {"a": b"1"}))


@pytest.mark.parametrize("server", ["etcd"], indirect=True)
async def test_a_leader_whose_key_was_deleted_learns_of_it_with_its_next_write(engine):
    async with opened(engine, engine.new_place()) as (store,):
        async with store.lead("me") as term:
            await store.commit(Transaction(deletes=(LEADER,)))
            with pytest.raises(StoreError):
                await store.commit(Transaction(term.compares, {"a": b"1"}))
