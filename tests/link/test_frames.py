"""The wire codec: what is encoded is decoded, and anything else is refused."""

import os
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.link import frames
from dorad.link.frames import (
    Ack,
    Content,
    Event,
    EventKind,
    FrameError,
    Message,
    Numbering,
    Opening,
    Part,
    Start,
)

counts = st.integers(0, (1 << 63) - 1)
words = st.integers(0, (1 << 64) - 1)
openings = st.builds(
    Opening, st.integers(0, 0xFFFF), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
)


@given(
    openings,
    counts,
    counts,
    st.tuples(words, st.integers(0, 255), words, words),
    st.integers(0, 3),
    st.binary(max_size=200),
    st.binary(max_size=300),
)
def test_a_message_is_decoded_as_it_was_encoded(
    opening: Opening,
    sequence: int,
    number: int,
    fields: tuple[int, int, int, int],
    flags: int,
    metadata: bytes,
    payload: bytes,
) -> None:
    content = Content(*fields, len(payload), flags)
    data = frames.message_head(opening, sequence, number, content, metadata) + payload
    message = Message(opening, sequence, number, content, metadata, memoryview(payload))
    assert frames.decode(data) == [message]
    assert frames.channel_of(data) == opening.channel
    whole = (sequence, number, content, metadata, len(data) - len(payload))
    assert frames.whole_message(data) == whole
    assert frames.whole_message(data + b"x") is None
    assert data.startswith(frames.message_prefix(opening))
    assert frames.decode(data * 3) == [message] * 3


@given(openings, counts, counts, st.binary(min_size=1, max_size=300))
def test_a_part_is_decoded_as_it_was_encoded(
    opening: Opening, sequence: int, offset: int, payload: bytes
) -> None:
    found = frames.decode(frames.part_head(opening, sequence, offset) + payload)
    assert found == [Part(opening, sequence, offset, memoryview(payload))]


@given(openings, counts, st.sampled_from(EventKind), st.text(max_size=5000))
def test_an_event_is_decoded_with_its_text_cut(
    opening: Opening, sequence: int, kind: EventKind, text: str
) -> None:
    [frame] = frames.decode(frames.encode_event(Event(opening, sequence, kind, text)))
    assert isinstance(frame, Event)
    assert frame[:3] == (opening, sequence, kind)
    assert text.encode("utf-8", "replace").startswith(frame.text.encode())
    assert len(frame.text.encode()) <= frames.MAX_TEXT


@given(openings, counts, counts)
def test_an_acknowledgement_is_decoded_as_it_was_encoded(
    opening: Opening, sequence: int, received: int
) -> None:
    ack = Ack(opening, sequence, received)
    assert frames.decode(frames.encode_ack(ack)) == [ack]


@given(openings, counts, st.integers(1, (1 << 63) - 1), counts)
def test_a_start_is_decoded_as_it_was_encoded(
    opening: Opening, first: int, numbering: int, begin: int
) -> None:
    start = Start(opening, first, Numbering(numbering, begin))
    assert frames.decode(frames.encode_start(start)) == [start]


def test_a_start_without_a_numbering_is_refused() -> None:
    with pytest.raises(FrameError, match="no id"):
        frames.decode(frames.encode_start(Start(Opening(0, 1, 2), 3, Numbering(0, 0))))


def test_a_message_whose_payload_is_too_short_or_too_long_is_refused() -> None:
    head = frames.message_head(Opening(0, 1, 2), 3, 3, Content(0, 5, 8, 0, 8, 0), b"{}")
    frames.decode(head + bytes(8))
    with pytest.raises(FrameError, match="payload of 8"):
        frames.decode(head + bytes(7))
    with pytest.raises(FrameError, match="only messages"):
        frames.decode(head + bytes(9))


@pytest.mark.parametrize("large", ["sequence", "number"])
def test_a_number_of_a_message_that_cannot_be_counted_on_from_is_refused(large: str) -> None:
    given = {"sequence": 3, "number": 4}
    content = Content(0, 5, 0, 0, 0, 0)
    for value, accepted in (((1 << 63) - 1, True), (1 << 63, False)):
        numbers = {**given, large: value}
        head = frames.message_head(
            Opening(0, 1, 2), numbers["sequence"], numbers["number"], content, b""
        )
        if accepted:
            frames.decode(head)
            continue
        with pytest.raises(FrameError, match=f"the number {value} is too large"):
            frames.decode(head)


def test_nothing_but_messages_may_follow_a_message() -> None:
    message, part, event, ack = samples()
    for other in (part, event, ack):
        with pytest.raises(FrameError, match="only messages"):
            frames.decode(message + other)


def test_a_frame_of_another_version_is_refused_by_name() -> None:
    ack = bytearray(frames.encode_ack(Ack(Opening(0, 0, 0), 0, 0)))
    for data in (ack, bytearray(samples()[0])):
        data[1] = frames.VERSION + 1
        with pytest.raises(FrameError, match=f"version {frames.VERSION + 1}"):
            frames.decode(bytes(data))


def samples() -> list[bytes]:
    opening = Opening(3, 7, 1 << 60)
    content = Content(1, 2, 16, 0, 16, 0)
    return [
        frames.message_head(opening, 9, 9, content, b'{"a":1}') + bytes(16),
        frames.part_head(opening, 9, 1 << 20) + bytes(100),
        frames.encode_event(Event(opening, 10, EventKind.FAILED, "exited with 1")),
        frames.encode_ack(Ack(opening, 11, 12)),
    ]


def test_20000_random_frames_are_refused_or_decoded_in_bounded_memory() -> None:
    chance = random.Random(1)
    known = samples()
    refused = 0
    tracemalloc.start()
    try:
        for number in range(20_000):
            if number % 2:
                data = bytearray(chance.choice(known))
                for _ in range(chance.randint(1, 6)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                frame = bytes(data[: chance.randint(0, len(data))])
            else:
                frame = os.urandom(chance.randint(0, 120))
            try:
                frames.decode(frame)
            except FrameError:
                refused += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused > 10_000
    assert peak < 1 << 20


def test_an_event_with_more_text_than_is_sent_is_refused() -> None:
    opening = Opening(1, 1, 1)
    longest = Event(opening, 1, EventKind.FAILED, "x" * frames.MAX_TEXT)
    data = frames.encode_event(longest)
    assert frames.decode(data) == [longest]
    with pytest.raises(FrameError, match=f"an event with {frames.MAX_TEXT + 1} bytes of text"):
        frames.decode(data + b"x")


def test_a_part_without_bytes_or_with_more_than_are_sent_at_once_is_refused() -> None:
    opening = Opening(1, 1, 1)
    head = frames.part_head(opening, 1, 5)
    whole = head + bytes(frames.MAX_FRAGMENT)
    assert frames.decode(whole) == [Part(opening, 1, 5, memoryview(bytes(frames.MAX_FRAGMENT)))]
    for data, size in ((head, 0), (whole + b"x", frames.MAX_FRAGMENT + 1)):
        with pytest.raises(FrameError, match=f"a part of {size} bytes"):
            frames.decode(data)


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({}, True),
        ({"size": 0, "metadata": b""}, True),
        ({"size": frames.MAX_FRAGMENT}, True),
        ({"size": frames.MAX_FRAGMENT + 1}, False),
        ({"metadata": bytes(frames.MAX_METADATA)}, True),
        ({"sequence": frames.MAX_NUMBER}, True),
        ({"sequence": frames.MAX_NUMBER + 1}, False),
        ({"number": frames.MAX_NUMBER}, True),
        ({"number": frames.MAX_NUMBER + 1}, False),
        ({"more": b"x"}, False),
        ({"more": None}, False),
    ],
)
def test_a_sample_is_one_whole_message_within_every_bound(
    fields: dict[str, Any], whole: bool
) -> None:
    given: dict[str, Any] = {"size": 4, "metadata": b"{}", "sequence": 1, "number": 2, "more": b""}
    given |= fields
    content = Content(5, 4, 1, 0, given["size"], 0)
    head = frames.message_head(
        Opening(1, 2, 3), given["sequence"], given["number"], content, given["metadata"]
    )
    data = head + bytes(given["size"]) + (given["more"] or b"")
    found = frames.whole_message(data if given["more"] is not None else data[:-1])
    expected = given["sequence"], given["number"], content, given["metadata"], len(head)
    assert found == (expected if whole else None)


@pytest.mark.parametrize(("most", "whole"), [(10, True), (9, False)])
def test_a_sample_with_more_metadata_than_are_sent_is_no_whole_message(
    monkeypatch: pytest.MonkeyPatch, most: int, whole: bool
) -> None:
    data = frames.message_head(Opening(1, 2, 3), 1, 2, Content(5, 4, 1, 0, 0, 0), bytes(10))
    monkeypatch.setattr(frames, "MAX_METADATA", most)
    assert (frames.whole_message(data) is not None) == whole


@pytest.mark.parametrize(("most", "error"), [(10, None), (9, "10 bytes of metadata in a frame of")])
def test_more_metadata_than_are_sent_or_than_have_come_are_refused(
    monkeypatch: pytest.MonkeyPatch, most: int, error: str | None
) -> None:
    content = Content(5, 4, 1, 0, 0, 0)
    data = frames.message_head(Opening(1, 2, 3), 1, 2, content, bytes(10))
    with pytest.raises(FrameError, match=f"10 bytes of metadata in a frame of {len(data) - 1}"):
        frames.decode(data[:-1])
    monkeypatch.setattr(frames, "MAX_METADATA", most)
    if error is None:
        assert len(frames.decode(data)) == 1
        assert frames.message_head(Opening(1, 2, 3), 1, 2, content, bytes(10)) == data
        return
    with pytest.raises(FrameError, match=error):
        frames.decode(data)
    with pytest.raises(FrameError, match="10 bytes of metadata; 9 are allowed"):
        frames.message_head(Opening(1, 2, 3), 1, 2, content, bytes(10))
