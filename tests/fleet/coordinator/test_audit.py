"""The audit: any change, gap or cut is found, and named by its record."""

import hashlib
import re

import pytest
import pytest_asyncio

from dorafleet.console.view.auditrows import MAX_DETAIL, change
from dorafleet.coordinator.audit import (
    HEAD,
    PREFIX,
    AuditError,
    Head,
    read_rows,
    read_tail,
    verify,
)
from dorafleet.store.errors import ConflictError
from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore

RECORDS = [f'{{"n": {number}}}'.encode() for number in range(1, 8)]


@pytest_asyncio.fixture
async def store(tmp_path):
    found = await SqliteStore.open(tmp_path / "store.db")
    try:
        yield found
    finally:
        await found.close()


async def append(store, *records):
    """Append records; return the heads after each."""
    heads = []
    for record in records:
        tail = await read_tail(store)
        await store.commit(Transaction(tail.compares, tail.puts(record)))
        heads.append((await read_tail(store)).head)
    return heads


def key(sequence):
    return f"{PREFIX}{sequence:020}"


async def put(store, key_, value):
    await store.commit(Transaction(puts={key_: value}))


async def test_an_untouched_chain_is_verified_and_its_hashes_are_as_documented(store):
    assert await verify(store) == Head()
    heads = await append(store, *RECORDS)
    expected = bytes(32)
    for record, head in zip(RECORDS, heads, strict=True):
        expected = hashlib.sha256(expected + record).digest()
        assert head.hash == expected.hex()
    assert await verify(store) == heads[-1]
    for known in (Head(), *heads):
        assert await verify(store, known) == heads[-1]
    assert [row.record async for row in read_rows(store)] == RECORDS
    assert [row.sequence async for row in read_rows(store, after=5)] == [6, 7]


async def test_a_long_chain_is_verified_over_its_pages(store):
    heads = await append(store, *(b"x" * number for number in range(600)))
    assert (await verify(store, heads[300])).sequence == 600


async def test_any_changed_byte_is_found_and_its_record_named(store):
    await append(store, *RECORDS)
    for entry in (await store.get(PREFIX)).entries:
        sequence = int(entry.key.removeprefix(PREFIX))
        for place in range(len(entry.value)):
            changed = bytearray(entry.value)
            changed[place] ^= 1
            await put(store, entry.key, bytes(changed))
            with pytest.raises(AuditError, match=rf"record {sequence} of|000{sequence}` is not"):
                await verify(store)
        await put(store, entry.key, entry.value)
    assert (await verify(store)).sequence == len(RECORDS)


async def test_a_removed_record_is_named(store):
    await append(store, *RECORDS)
    await store.commit(Transaction(deletes=(key(3),)))
    with pytest.raises(AuditError, match="record 3 of the audit is missing"):
        await verify(store)


async def test_a_tail_cut_off_by_halves_is_found_without_a_known_head(store):
    await append(store, *RECORDS)
    await store.commit(Transaction(deletes=(key(7),)))
    with pytest.raises(AuditError, match="ends with record 6, its head says 7"):
        await verify(store)
    await store.commit(Transaction(deletes=(HEAD,)))
    with pytest.raises(AuditError, match="its head says 0"):
        await verify(store)


async def test_a_tail_cut_off_with_care_is_found_with_a_known_head(store):
    heads = await append(store, *RECORDS)
    await store.commit(Transaction(puts={HEAD: str(heads[4]).encode()}, deletes=(key(6), key(7))))
    assert await verify(store) == heads[4]
    assert await verify(store, heads[4]) == heads[4]
    for known in heads[5:]:
        with pytest.raises(AuditError, match="ends with record 5, the known head is record"):
            await verify(store, known)


async def test_a_rewritten_chain_is_found_with_a_known_head(store):
    heads = await append(store, *RECORDS)
    await store.commit(Transaction(deletes=(HEAD, *(key(n) for n in range(1, 8)))))
    await append(store, b"another", *RECORDS)
    await verify(store)
    for known in heads:
        with pytest.raises(AuditError, match="is not the known one"):
            await verify(store, known)


async def test_of_two_writers_at_one_end_one_has_to_read_it_again(store):
    tail = await read_tail(store)
    await store.commit(Transaction(tail.compares, tail.puts(b"one")))
    with pytest.raises(ConflictError):
        await store.commit(Transaction(tail.compares, tail.puts(b"two")))
    assert (await verify(store)).sequence == 1


async def test_a_damaged_head_is_an_error_that_says_so(store):
    await append(store, *RECORDS)
    for value in (b"", b"7", b"\xff", b"7:" + b"g" * 64):
        await put(store, HEAD, value)
        with pytest.raises(AuditError, match="head of the audit was changed"):
            await verify(store)


@pytest.mark.parametrize("text", ["", "7", "7:abc", "-1:" + "0" * 64, "x:" + "0" * 64])
def test_a_text_that_is_no_head_is_refused(text):
    with pytest.raises(ValueError, match="is not a head"):
        Head.parse(text)
    assert Head.parse(str(Head(7, "a" * 64))) == Head(7, "a" * 64)


def test_details_of_a_change_are_short_and_readable():
    record = {
        "action": "robot.label",
        "client": "dorafleet 1",
        "robot": "arm1",
        "labels": {"zone": "hall", "gpu": None},
        "expires": 0,
        "note": "n" * 1000,
    }
    shown = change(record)
    assert shown.startswith("robot.label arm1: labels zone hall, gpu removed, expires ")
    assert shown.endswith(f"note {'n' * MAX_DETAIL}…")
    assert len(re.findall(r"\d\d:\d\d:\d\d", shown)) == 1
