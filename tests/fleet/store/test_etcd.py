"""The etcd engine with three members of which some die: nothing acknowledged is lost."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from dorafleet.store import etcd, gateway
from dorafleet.store.errors import Code, ConflictError, StoreError
from dorafleet.store.etcd import EtcdStore
from dorafleet.store.model import Transaction
from tests.fleet.store.etcdserver import Cluster
from tests.harness.waiting import until

pytestmark = pytest.mark.long

DEADLINE_S = 50.0
LEASE_S = 2.0


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    found = Cluster(tmp_path, 3)
    try:
        found.start()
        yield found
    finally:
        found.end()


async def write(store, acknowledged, enough):
    """Append numbers until it is enough; keep those that are acknowledged."""
    number = 0
    while not enough.is_set():
        number += 1
        key = f"n/{number:06}"
        try:
            await store.commit(Transaction({key: 0}, {key: b""}))
        except StoreError as error:
            assert error.code in (Code.UNKNOWN, Code.UNAVAILABLE)
            await asyncio.sleep(0.05)
        else:
            acknowledged.append(key)


async def more(acknowledged):
    target = len(acknowledged) + 30
    await until(lambda: len(acknowledged) >= target)


async def test_a_member_killed_during_writes_loses_nothing_acknowledged(cluster):
    acknowledged: list[str] = []
    enough = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        store = await EtcdStore.open(cluster.urls)
        try:
            writing = asyncio.create_task(write(store, acknowledged, enough))
            for member in cluster.members[:2]:
                await more(acknowledged)
                await asyncio.to_thread(member.kill)
                await more(acknowledged)
                member.start()
                await asyncio.to_thread(member.wait)
            enough.set()
            await writing
            found = {entry.key for entry in (await store.get("n/")).entries}
            assert found >= set(acknowledged)
        finally:
            await store.close()


async def test_all_members_killed_at_once_lose_nothing_acknowledged(cluster):
    acknowledged: list[str] = []
    enough = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        store = await EtcdStore.open(cluster.urls)
        try:
            writing = asyncio.create_task(write(store, acknowledged, enough))
            await more(acknowledged)
            for member in cluster.members:
                member.signal(signal.SIGKILL)
            cluster.end()
            enough.set()
            await writing
            await asyncio.to_thread(cluster.start)
            found = {entry.key for entry in (await store.get("n/")).entries}
            assert found >= set(acknowledged)
        finally:
            await store.close()


async def test_a_leader_that_is_cut_off_knows_it_before_another_leads(cluster):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        # The first knows one member only, which is stopped: its answers never come.
        one = await EtcdStore.open(cluster.urls[:1])
        two = await EtcdStore.open(cluster.urls[1:])
        try:
            async with one.lead("one", lease=LEASE_S) as former:
                lost = asyncio.create_task(when(former.lost, loop))
                cluster.members[0].signal(signal.SIGSTOP)
                async with two.lead("two", lease=LEASE_S) as term:
                    led = loop.time()
                    assert await lost <= led
                    assert term.epoch > former.epoch
                    cluster.members[0].signal(signal.SIGCONT)
                    await asyncio.to_thread(cluster.members[0].wait)
                    with pytest.raises(ConflictError):
                        await one.commit(Transaction(former.compares, {"a": b""}))
                    await two.commit(Transaction(term.compares, {"a": b""}))
        finally:
            await one.close()
            await two.close()


async def test_one_that_waits_reports_who_leads_and_that_members_are_away(cluster, monkeypatch):
    monkeypatch.setattr(etcd, "RECHECK_S", 0.1)
    said: list[str] = []

    async def wait(store):
        async with store.lead("two", on_waiting=said.append):
            pytest.fail("two lead")

    async with asyncio.timeout(DEADLINE_S):
        one = await EtcdStore.open(cluster.urls)
        two = await EtcdStore.open(cluster.urls)
        try:
            async with one.lead("one"):
                waiting = asyncio.create_task(wait(two))
                await until(lambda: said[-1:] == ["`one` leads"])
                monkeypatch.setattr(gateway, "CALL_S", 0.5)
                for member in cluster.members[1:]:
                    await asyncio.to_thread(member.kill)
                await until(lambda: said[-1] != "`one` leads")
                assert "can answer" in said[-1]
                waiting.cancel()
                await asyncio.wait((waiting,))
                assert waiting.cancelled()
        finally:
            await one.close()
            await two.close()


async def when(event, loop):
    await event.wait()
    return loop.time()


async def test_without_a_quorum_nothing_is_written_and_reading_fails_too(cluster, monkeypatch):
    monkeypatch.setattr(gateway, "CALL_S", 1.0)
    async with asyncio.timeout(DEADLINE_S):
        store = await EtcdStore.open(cluster.urls)
        try:
            await store.commit(Transaction(puts={"a": b"1"}))
            for member in cluster.members[1:]:
                await asyncio.to_thread(member.kill)
            with pytest.raises(StoreError):
                await store.commit(Transaction(puts={"a": b"2"}))
            with pytest.raises(StoreError):
                await store.get("a")
        finally:
            await store.close()
