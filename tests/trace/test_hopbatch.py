"""Batches of hop records: what a daemon writes is read again, and nothing else is."""

from __future__ import annotations

from itertools import starmap

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.shm.hoplog import Hop
from dorad.shm.layout import HOP_CONTEXT, HOP_RECEIVE, HOP_SEND
from dorad.trace import hopbatch
from dorad.trace.hopbatch import MAX_HOPS, Exit, HopBatch, Losses, batches, decode, encode
from dorad.trace.model import NodePlaces, Place

words = st.integers(0, 2**64 - 1)
few = st.integers(0, 3)
hop = st.builds(
    Hop, st.integers(HOP_RECEIVE, HOP_CONTEXT), words, words, few, words, few, words, words
)
places = st.builds(
    NodePlaces,
    st.dictionaries(few, st.builds(Place, st.text(), st.text(), st.booleans(), st.booleans())),
    st.dictionaries(few, st.text()),
    st.booleans(),
)
EMPTY = HopBatch("flow", "run", 7, 1000, "camera", losses=Losses(1, 2, 3))


@given(places, st.lists(hop, max_size=20), st.integers(1, 7))
def test_records_are_the_same_after_a_recording_and_each_batch_says_what_its_words_mean(
    places: NodePlaces, hops: list[Hop], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hopbatch, "MAX_HOPS", most)
        read = [decode(encode(each)) for each in batches(EMPTY, places, hops)]
    assert [each for batch in read for each in batch.hops()] == hops
    first = 7
    for batch in read:
        assert batch.first == first
        assert 0 < len(batch) == len(batch.hops()) <= most
        assert (batch.node, batch.losses, batch.exit) == ("camera", Losses(1, 2, 3), None)
        assert batch.places.passes_on == places.passes_on
        for each in starmap(Hop, batch.hops()):
            if each.kind in (HOP_SEND, HOP_CONTEXT):
                assert batch.outputs.get(each.place) == places.outputs.get(each.place)
            if each.kind == HOP_SEND:
                assert batch.rings.get(each.parent_place) == places.rings.get(each.parent_place)
            elif each.kind != HOP_CONTEXT:
                assert batch.rings.get(each.place) == places.rings.get(each.place)
        first += len(batch)


def test_a_batch_is_a_small_message() -> None:
    hops = [Hop(HOP_RECEIVE, 5, 2**63, 9000, 2**63, 0, 0, 1)] * MAX_HOPS
    known = NodePlaces({9000: Place("image", "camera/image")}, {})
    (batch,) = batches(EMPTY, known, hops)
    assert len(encode(batch)) <= 16 << 10


def test_the_end_of_a_process_is_a_batch_without_records() -> None:
    batch = msgspec.structs.replace(EMPTY, exit=Exit([5, 6], failed=True))
    assert decode(encode(batch)) == batch
    assert len(batch) == 0


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="hop records"):
        decode(data)


@pytest.mark.parametrize(
    "columns", [b"x", bytes(63), bytes(64)], ids=["a byte", "short", "unknown kind"]
)
def test_columns_that_hold_no_records_are_refused(columns: bytes) -> None:
    with pytest.raises(ValueError, match="hop record"):
        msgspec.structs.replace(EMPTY, columns=columns).hops()


def test_a_batch_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="bytes"):
        decode(bytes(hopbatch.MAX_BYTES + 1))
