"""The hop records of a node, and how they are read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.node.clock import Clock
from dorad.node.inputs import RingInput
from dorad.node.metadata import encode
from dorad.shm import hops, layout, native
from dorad.shm.hoplog import Hop, HopCursor
from tests.shm.edge import comparable, edge, read_hops

RECORDS = layout.BOX_HOP_RECORDS
WORD = (1 << 64) - 1
numbers = st.integers(0, WORD)


@pytest.fixture
def box() -> memoryview:
    return memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")


def _put(box: memoryview, index: int, fields: tuple[int, ...]) -> None:
    at = RECORDS + index % layout.HOPS * layout.HOP_WORDS
    for number, value in enumerate((hops.check_of(index, fields), *fields)):
        box[at + number] = value
    box[layout.BOX_HOPS] = index + 1 & WORD


def _fields(kind: int = layout.HOP_SEND, value: int = 0) -> tuple[int, ...]:
    return (kind | 5 << layout.HOP_THREAD, 1, 2, 3, 4, 5, value)


@pytest.fixture(params=["native", "pure"])
def writer(request: pytest.FixtureRequest) -> Iterator[object]:
    if request.param == "pure":
        yield hops._Writer()
    elif native.module is None:
        pytest.skip("there is no C part")
    else:
        yield hops


def test_records_tell_what_a_thread_did_with_which_message(box: memoryview, writer: hops) -> None:
    before = time.time_ns()
    writer.received(box, 100, 7, 11, 3)
    writer.sent(box, 55, 8, 12, 900)
    writer.sent(box, 0, 9, 13, 900)  # no output
    writer.done(box)
    writer.done(box)
    writer.dropped(box, 100, 40, 2)
    writer.sent(box, 56, 10, 14, WORD)
    read, cursor = read_hops(box, HopCursor())
    me = threading.get_native_id()
    done, dropped = read[2], read[3]
    assert read == [
        Hop(layout.HOP_RECEIVE, me, 11, 100, 7, 0, 0, 3),
        Hop(layout.HOP_SEND, me, 12, 55, 8, 100, 7, 900),
        Hop(layout.HOP_DONE, me, done.at_ns, 100, 7, 0, 0, 0),
        Hop(layout.HOP_DROP, me, dropped.at_ns, 100, 40, 0, 0, 2),
        Hop(layout.HOP_SEND, me, 14, 56, 10, 100, 7, WORD),
    ]
    assert before <= done.at_ns <= dropped.at_ns <= time.time_ns()
    assert cursor == HopCursor(5, 5, 0, 0)
    assert read_hops(box, cursor) == ([], cursor)


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = f"00-{'1' * 32}-{'2' * 16}-00"
BROKEN = (
    "", "00", PARENT[:-1], PARENT + "0", PARENT.upper(), "01" + PARENT[2:],
    PARENT.replace("-", "_"),
    f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-0g", "b3:1-2-1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"open_telemetry_context": ""}, None),
        ({"note": f'"traceparent":"{PARENT}"'}, None),
        ({"traceparent": PARENT}, PARENT),
        # As a node of dora 1.1.0 writes it, whose order is that of a hash table.
        ({"open_telemetry_context": f"traceparent:{PARENT};tracestate:;"}, PARENT),
        ({"a": 1, "open_telemetry_context": f"tracestate:x=1;traceparent:{PARENT};"}, PARENT),
        ({"open_telemetry_context": f"traceparent:{PARENT}", "traceparent": OTHER}, PARENT),
        ({"open_telemetry_context": "b3:1-2-1;", "traceparent": PARENT}, PARENT),
        ({"open_telemetry_context": "tracestate:;"}, "broken"),
        ({"open_telemetry_context": PARENT}, "broken"),
        *(({"traceparent": text}, "broken") for text in BROKEN if text),
        *(({"open_telemetry_context": f"traceparent:{text};"}, "broken") for text in BROKEN),
    ],
)
def test_the_trace_context_of_a_message_is_recorded(
    box: memoryview, writer: hops, metadata: dict[str, object], expected: str | None
) -> None:
    writer.received(box, 100, 6, 10, 0)
    writer.sent(box, 55, 7, 11, 1)
    writer.context(box, 55, 7, encode(metadata) if metadata else b"")
    writer.context(box, 0, 7, encode({"traceparent": PARENT}))  # no output
    _, _, *read = read_hops(box, HopCursor())[0]
    if expected is None:
        assert read == []
        return
    ids = (0, 0, 0)
    if expected != "broken":
        ids = (int(TRACE[:16], 16), int(TRACE[16:], 16), int(SPAN, 16))
    assert read == [Hop(layout.HOP_CONTEXT, read[0].thread, 7, 55, 7, *ids)]


@given(st.binary(max_size=200))
def test_any_bytes_for_metadata_are_no_context_or_a_broken_one(data: bytes) -> None:
    for writer in (hops._Writer(), *([hops] if native.module else [])):
        words = memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")
        for text in (data, b'"traceparent":"' + data, b'"open_telemetry_context":"' + data + b'"'):
            writer.context(words, 1, 2, text)
        assert all(hop.value == 0 for hop in read_hops(words, HopCursor())[0])


def test_the_parent_is_the_message_of_this_thread_and_this_node(
    box: memoryview, writer: hops
) -> None:
    other = memoryview(bytearray(len(box) * layout.WORD)).cast("Q")
    writer.received(box, 100, 7, 11, 0)

    def elsewhere() -> None:
        writer.sent(box, 55, 8, 12, 1)
        writer.done(box)
        writer.received(box, 100, 9, 13, 0)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    writer.sent(other, 55, 10, 14, 1)
    writer.done(other)
    writer.sent(box, 55, 10, 14, 1)
    read, _ = read_hops(box, HopCursor())
    assert [(hop.kind, hop.stamp, hop.parent_stamp) for hop in read] == [
        (layout.HOP_RECEIVE, 7, 0),
        (layout.HOP_SEND, 8, 0),
        (layout.HOP_RECEIVE, 9, 0),
        (layout.HOP_SEND, 10, 7),
    ]
    assert len({hop.thread for hop in read}) == 2
    assert [hop.parent_stamp for hop in read_hops(other, HopCursor())[0]] == [0]


def test_threads_that_write_at_once_get_a_place_each(box: memoryview, writer: hops) -> None:
    each, threads = 200, 5
    barrier = threading.Barrier(threads)

    def write(number: int) -> None:
        barrier.wait()
        for at in range(each):
            writer.sent(box, number + 1, at, 0, number)

    running = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    read, cursor = read_hops(box, HopCursor())
    assert cursor == HopCursor(each * threads, each * threads, 0, 0)
    for number in range(threads):
        assert [hop.stamp for hop in read if hop.value == number] == [*range(each)]


def test_records_that_were_overwritten_before_they_were_read_are_counted(box: memoryview) -> None:
    for index in range(layout.HOPS + 10):
        _put(box, index, _fields(value=index))
    read, cursor = read_hops(box, HopCursor())
    assert [hop.value for hop in read] == [*range(10, layout.HOPS + 10)]
    assert cursor == HopCursor(layout.HOPS + 10, layout.HOPS + 10, 10, 0)


def test_a_record_that_is_being_written_is_read_later(box: memoryview) -> None:
    _put(box, 0, _fields(value=1))
    _put(box, 1, _fields(value=2))
    at = RECORDS + layout.HOP_WORDS
    whole, box[at] = box[at], 0
    _put(box, 2, _fields(value=3))
    read, cursor = read_hops(box, HopCursor())
    assert [hop.value for hop in read] == [1]
    assert (cursor.next, cursor.damaged) == (1, 0)
    box[at] = whole
    read, cursor = read_hops(box, cursor)
    assert [hop.value for hop in read] == [2, 3]
    assert cursor == HopCursor(3, 3, 0, 0)


def test_a_record_whose_writer_was_killed_is_skipped_at_the_next_read(box: memoryview) -> None:
    for index in range(3):
        _put(box, index, _fields(value=index))
    box[RECORDS + layout.HOP_WORDS + layout.HOP_VALUE] += 1
    read, cursor = read_hops(box, HopCursor())
    assert [hop.value for hop in read] == [0]
    read, cursor = read_hops(box, cursor)
    assert [hop.value for hop in read] == [2]
    assert cursor == HopCursor(3, 3, 0, 1)


def test_a_record_of_a_time_that_has_not_come_is_damaged(box: memoryview) -> None:
    now, later = time.time_ns(), time.time_ns() + 10**12
    times = [(now, now), (later, now), (now, 1 << 63), (now, later), (now, (1 << 63) - 1)]
    kinds = [layout.HOP_RECEIVE] * 5 + [layout.HOP_CONTEXT]
    for index, (kind, (at, stamp)) in enumerate(zip(kinds, [*times, (later, later)], strict=True)):
        _put(box, index, (kind | 5 << layout.HOP_THREAD, at, 2, stamp, 4, 5, index))
    read, cursor = read_hops(box, HopCursor())
    assert [hop.value for hop in read] == [0, 3, 4, 5]
    assert cursor == HopCursor(6, 6, 0, 2)


def test_a_record_of_a_clock_that_follows_another_machine_counts(box: memoryview) -> None:
    ahead = time.time_ns() + layout.MAX_AHEAD_NS
    for index, at in enumerate((ahead, ahead + 10**12)):
        _put(box, index, (layout.HOP_SEND | 5 << layout.HOP_THREAD, at, 2, at, 4, 5, index))
    read, cursor = read_hops(box, HopCursor())
    assert [hop.value for hop in read] == [0]
    assert cursor == HopCursor(2, 2, 0, 1)


@given(numbers, st.integers(0, layout.HOP_WORDS - 1), st.data())
def test_no_mixture_of_two_records_counts_as_one(
    index: int, place: int, data: st.DataObject
) -> None:
    box = memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")
    fields = st.tuples(*[numbers] * (layout.HOP_WORDS - 1))
    first = data.draw(fields)
    change = data.draw(st.integers(1, WORD))
    _put(box, index, first)
    at = RECORDS + index % layout.HOPS * layout.HOP_WORDS
    box[at + place] ^= change
    cursor = HopCursor(index, index)
    read, _ = read_hops(box, cursor)
    assert read == []


@given(
    st.lists(st.tuples(st.integers(0, layout.BOX_WORDS - layout.BOX_HOPS - 1), numbers)),
    st.builds(HopCursor, numbers, numbers, st.integers(0, 9), st.integers(0, 9)),
    st.binary(max_size=2000),
    st.lists(numbers, max_size=4),
)
def test_nothing_that_a_process_writes_there_stops_the_reader(
    writes: list[tuple[int, int]], cursor: HopCursor, noise: bytes, heads: list[int]
) -> None:
    box = memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")
    box.cast("B")[RECORDS * layout.WORD : RECORDS * layout.WORD + len(noise)] = noise
    for at, value in writes:
        box[layout.BOX_HOPS + at] = value
    for head in [box[layout.BOX_HOPS], *heads]:
        box[layout.BOX_HOPS] = head
        read, after = read_hops(box, cursor)
        assert len(read) <= layout.HOPS
        assert all(layout.HOP_RECEIVE <= hop.kind <= layout.HOP_DROP for hop in read)
        assert after.overwritten >= cursor.overwritten
        assert after.damaged >= cursor.damaged
        cursor = after
    # A node that behaves is read again, after two reads at the latest.
    for _ in range(2):
        _, cursor = read_hops(box, cursor)
    head = cursor.next
    _put(box, head, _fields(value=77))
    read, cursor = read_hops(box, cursor)
    assert [hop.value for hop in read][-1:] == [77]


def test_taking_dropping_and_sending_leave_records() -> None:
    if hops.received is None:
        pytest.skip("hops are not recorded here")
    with edge(2) as e:
        item = RingInput("in", e.inlet, Clock())
        for stamp in range(1, 5):
            e.push(struct.pack("=B", stamp), stamp=stamp)
        while item.take() is not None:
            pass
        read, _ = read_hops(e.box.words, HopCursor())
    base = e.ring.base
    assert [(hop.kind, hop.place, hop.stamp, hop.value) for hop in read] == [
        (layout.HOP_DROP, base, 0, 2),
        (layout.HOP_RECEIVE, base, 3, 1),
        (layout.HOP_RECEIVE, base, 4, 0),
    ]


@pytest.mark.parametrize("lane", [True, False])
def test_python_records_what_c_records(lane: bool) -> None:
    if native.module is None:
        pytest.skip("there is no C part")
    found = []
    for plain in (True, False):
        with edge(2, lane=lane) as e:
            e.inlet.plain = plain and not lane
            for stamp in range(1, 6):
                e.push(b"x", stamp=1 << 60 | stamp, flags=layout.CORRELATED if stamp == 2 else 0)
                if stamp > 3:
                    e.take()
            found.append(comparable(e.box.words, HopCursor()))
    assert found[0] == found[1]


def test_pure_python_records_only_if_it_is_told_to() -> None:
    script = "from dorad.shm import hops; print(hops.received is None, hops.done is None)"
    for value, expected in (("", "True True"), ("1", "False False")):
        env = {**os.environ, "DORAD_NATIVE": "0", hops.VARIABLE: value}
        command = [sys.executable, "-c", script]
        found = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        assert found.stdout.strip() == expected


def test_keys_of_outputs_are_the_same_in_all_languages() -> None:
    assert hops.output_key("") == 0xCBF29CE484222325
    assert hops.output_key("a") == 0xAF63DC4C8601EC8C
    assert hops.output_key("foobar") == 0x85944171F73967E8


@given(st.data())
def test_the_native_reader_reads_what_the_pure_one_does(data: st.DataObject) -> None:
    if native.module is None:
        pytest.skip("there is no C part")
    box = memoryview(bytearray(layout.BOX_WORDS * layout.WORD)).cast("Q")
    begin = data.draw(st.sampled_from((0, 1000, 1 << 40, WORD - 3)))
    for index in range(begin, begin + data.draw(st.integers(0, 8))):
        kind = data.draw(st.integers(0, 6))
        _put(box, index & WORD, _fields(kind, data.draw(numbers)))
        if data.draw(st.booleans()):
            at = RECORDS + index % layout.HOPS * layout.HOP_WORDS
            box[at + data.draw(st.integers(0, 7))] = data.draw(numbers)
    if data.draw(st.booleans()):
        box[layout.BOX_HOPS] = data.draw(numbers)
    cursor = HopCursor(begin, data.draw(st.one_of(st.just(begin), numbers)), 5, 7)
    found = read_hops(box, cursor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "module", None)
        assert read_hops(box, cursor) == found
