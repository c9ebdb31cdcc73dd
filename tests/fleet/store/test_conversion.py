"""The store of an earlier version becomes one of deployments: nothing is lost, whatever happens."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorafleet.coordinator.conversion import BACKUP, MARK, NEWEST, RUNS, convert
from dorafleet.coordinator.deployments import DEPLOYMENTS, Deployment
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import (
    DataflowRecord,
    End,
    StartOptions,
    desired_key,
    desired_share,
)
from dorafleet.coordinator.rollouts import HEADS
from dorafleet.coordinator.writer import Writer
from dorafleet.rollout.model import Rollout
from dorafleet.rollout.strategy import Strategy
from dorafleet.store.backup import restore
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.model import Store, Term, Transaction
from dorafleet.store.sqlite import SqliteStore

AUDIT = "audit"
NAMES = st.sampled_from(["arm", "pick", "cell.2", "a-b", "-"])


def run(name: str | None, number: int, *, ended: bool) -> DataflowRecord:
    return DataflowRecord(
        uuid=f"00000000-0000-4000-8000-{number:012}",
        name=name,
        path="/flow.yml",
        original={"nodes": []},
        descriptor={"nodes": [{"id": "a", "path": "a.py"}]},
        options=StartOptions(env={"A": "1"}),
        placement={"a": "arm1"},
        ports={"arm1": 7000 + number},
        generation=number,
        started_at=float(number),
        hold=120.0,
        params={"a": {"gain": number}},
        end=End(number + 0.5, "failed") if ended else None,
    )


def head(dataflow: str, number: int) -> Rollout:
    return Rollout(
        number=number,
        dataflow=dataflow,
        release=f"{number:064x}",
        name=f"{dataflow}@{number}",
        strategy=Strategy(),
        size=1,
        by="ann",
        created=float(number),
        phase="succeeded",
        over=True,
    )


@st.composite
def old_stores(draw: st.DrawFn) -> dict[str, bytes]:
    """Return entries that an earlier version may have left."""
    entries: dict[str, Any] = {"labels/arm1": {"zone": "hall"}}
    kinds = draw(st.lists(st.tuples(NAMES, st.booleans()), max_size=5, unique_by=lambda k: k[0]))
    for number, (name, ended) in enumerate(kinds, start=1):
        record = run(None if name == "-" else name, number, ended=ended)
        entries[f"{RUNS}{record.key}"] = record
        entries[desired_key("arm1", record.key)] = desired_share(record)
    rolled = draw(st.lists(st.sampled_from(["arm", "pick", "old"]), max_size=6))
    for number, name in enumerate(rolled, start=1):
        entries[f"{HEADS}{number:08}"] = head(name, number)
        if draw(st.booleans()):  # before there was that table, a rollout had no such key
            entries[f"{NEWEST}{name}"] = number
    return {key: msgspec.json.encode(value) for key, value in entries.items()}


class Dying:
    """A writer whose process dies after so many changes."""

    def __init__(self, writer: Writer, changes: int) -> None:
        self.changing = writer.changing
        self._writer, self._left = writer, changes

    async def commit(self, *args: Any, **kwargs: Any) -> Any:
        self._live()
        return await self._writer.commit(*args, **kwargs)

    async def keep(self, puts: dict[str, bytes]) -> None:
        self._live()
        await self._writer.keep(puts)

    def _live(self) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1


async def content(store: Store) -> dict[str, bytes]:
    entries = (await store.get("")).entries
    return {each.key: each.value for each in entries if not each.key.startswith(AUDIT)}


def writer_of(store: Store) -> Writer:
    return Writer(store, Term(1, 0, asyncio.Event()))


async def filled(path: Path, old: dict[str, bytes]) -> SqliteStore:
    store = await SqliteStore.open(path)
    await store.commit(Transaction(puts=old))
    return store


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(old=old_stores(), dies_after=st.integers(0, 12))
def test_nothing_is_lost_and_a_second_conversion_changes_nothing(
    old: dict[str, bytes], dies_after: int
) -> None:
    async def main(folder: Path) -> None:
        store = await filled(folder / "a.db", old)
        rest = {k: v for k, v in old.items() if not k.startswith((RUNS, NEWEST))}
        with suppress(KeyboardInterrupt):
            await convert(store, Dying(writer_of(store), dies_after), folder)  # type: ignore[arg-type]
        await convert(store, writer_of(store), folder)
        after = await content(store)
        deployments = {
            key.removeprefix(DEPLOYMENTS): msgspec.json.decode(value, type=Deployment)
            for key, value in after.items()
            if key.startswith(DEPLOYMENTS)
        }
        assert {k: v for k, v in after.items() if not k.startswith((DEPLOYMENTS, MARK))} == rest
        heads = [msgspec.json.decode(v, type=Rollout) for k, v in old.items() if k[:8] == HEADS]
        for key, value in old.items():
            if key.startswith(RUNS):
                name = key.removeprefix(RUNS)
                assert deployments[name].run == msgspec.json.decode(value, type=DataflowRecord)
        for name, each in deployments.items():
            assert name == each.name
            numbers = [one.number for one in heads if one.dataflow == name]
            assert each.rollout == max(numbers, default=0)
            assert each.run is not None or each.source == "release"
            assert each.source == "inline" or each.run is None or not each.run.running
            assert {one.rollout for one in each.history if one.rollout} == {*numbers}
            assert [one.number for one in each.history] == [*range(1, len(each.history) + 1)]
        assert {one.dataflow for one in heads} <= deployments.keys()
        revision = (await store.get("")).revision
        assert await convert(store, writer_of(store), folder) == 0
        assert (await store.get("")).revision == revision
        fleet = Fleet(store, writer_of(store))
        await fleet.load()
        assert fleet.deployments == deployments
        await store.close()

        # The backup has what was there, for the earlier version; it is converted in the same way.
        if (folder / BACKUP).exists():
            again = await SqliteStore.open(folder / "b.db")
            await restore(again, folder / BACKUP)
            assert (await content(again)).items() >= old.items()
            await convert(again, writer_of(again), folder)
            assert {k: v for k, v in (await content(again)).items() if k in after} == after
            await again.close()
        else:
            assert not deployments

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


async def test_an_earlier_version_refuses_the_store_whatever_is_left_in_it(tmp_path: Path) -> None:
    """It reads each entry of `dataflow/` as a record, and does not lead if one is damaged."""
    store = await filled(tmp_path / "a.db", {})
    await convert(store, writer_of(store), tmp_path)
    values = [each.value for each in (await store.get(RUNS)).entries]
    assert len(values) == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(values[0], type=DataflowRecord)
    await store.close()


async def test_a_damaged_record_or_a_missing_backup_leaves_the_store_as_it_was(
    tmp_path: Path,
) -> None:
    key = f"{RUNS}arm"
    store = await filled(tmp_path / "a.db", {key: b"{"})
    revision = (await store.get("")).revision
    with pytest.raises(StoreError) as damaged:
        await convert(store, writer_of(store), tmp_path)
    assert damaged.value.code is Code.DAMAGED and key in damaged.value.message
    await store.commit(Transaction(puts={key: msgspec.json.encode(run("arm", 1, ended=False))}))
    with pytest.raises(ControlError, match="cannot be written"):
        await convert(store, writer_of(store), tmp_path / "missing")
    assert (await store.get("")).revision == revision + 1
    assert (await store.get(MARK)).entries == ()
    await store.close()
