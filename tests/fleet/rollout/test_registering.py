"""A coordinator that ends while it registers a release: the next one has all of it, or nothing."""

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.audit import read_rows, verify
from dorafleet.coordinator.releases import CONTENTS, RELEASES, UPLOADS
from dorafleet.rollout import messages as r
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.sqlite import SqliteStore

from .site import ID1, ID2, ONE, TWO, put, site


class EndingStore:
    """Makes some changes about releases, and none after that, as if the process were gone."""

    def __init__(self, store, changes):
        self.left = changes
        self._commit = store.commit
        store.commit = self.commit

    async def commit(self, transaction):
        if any(key.startswith("release") for key in transaction.puts):
            if not self.left:
                raise StoreError(Code.UNAVAILABLE, "gone")
            self.left -= 1
        return await self._commit(transaction)


async def keys(store):
    found = (await store.get("release")).entries
    return [entry.key for entry in found]


@pytest.mark.parametrize("changes", [1, 2, 3])
async def test_no_part_of_a_release_that_was_not_registered_stays(tmp_path, monkeypatch, changes):
    monkeypatch.setattr("dorafleet.coordinator.releases.PART", 150)
    async with site(tmp_path, 0, register=False) as one:
        await one.register(ONE)
        before = await keys(one.fleet.store)
        EndingStore(one.fleet.store, changes)
        with pytest.raises(StoreError, match="gone"):
            await one.register(TWO)
        left = set(await keys(one.fleet.store)) - set(before)
        assert left == {f"{UPLOADS}{ID2}"} | {f"{CONTENTS}{ID2}/{n:04}" for n in range(changes)}
    async with site(tmp_path, 0, register=False) as one:
        assert await keys(one.fleet.store) == before
        with pytest.raises(ControlError, match="no release `pick@2` is registered"):
            await one.fleet.call("release.get", r.ReleaseRef(release="pick@2"))
        records = [row.record async for row in read_rows(one.fleet.store)]
        assert b'"release.forget"' in records[-1]
        assert ID2.encode() in records[-1]
        await verify(one.fleet.store)
        # The operator's command again.
        await one.register(TWO)
        assert not [key for key in await keys(one.fleet.store) if key.startswith(UPLOADS)]
        found = await one.fleet.call("release.get", r.ReleaseRef(release="pick@2"))
        assert found.content == put(TWO).content


async def test_parts_that_cannot_be_removed_keep_no_coordinator_from_leading(tmp_path):
    async with site(tmp_path, 0, register=False) as one:
        await one.register(ONE)
        left = {f"{UPLOADS}{ID2}": b"1"}
        await one.fleet.control.fleet.put_orders({}, {"action": "test"}, puts=left)
    store = await SqliteStore.open(tmp_path / "coordinator.db")
    commit = store.commit

    async def full(transaction):
        if any(key.startswith(UPLOADS) for key in transaction.deletes):
            raise StoreError(Code.UNAVAILABLE, "the disk is full")
        return await commit(transaction)

    store.commit = full
    async with site(tmp_path, 0, register=False, store=store) as one:
        known = await one.fleet.call("release.list")
        assert [each.id for each in known.releases] == [ID1]
    await store.close()
    async with site(tmp_path, 0, register=False) as one:
        assert await keys(one.fleet.store) == [f"{CONTENTS}{ID1}/0000", f"{RELEASES}{ID1}"]
