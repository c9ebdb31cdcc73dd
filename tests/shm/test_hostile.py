"""A hostile peer writes into shared memory: no crash, no read elsewhere, no hang."""

import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from dorad.node.clock import Clock
from dorad.node.inputs import RingInput, TimerInput
from dorad.node.peers import ring_at
from dorad.shm import hops, layout
from dorad.shm.arrow import encode
from dorad.shm.counters import counters
from dorad.shm.inlet import UnreadableError
from dorad.shm.latch import LatchedOutlet
from dorad.shm.layout import CODE_IPC
from tests.shm.edge import Edge, edge

FIELDS = ("stamp", "length", "nulls", "size", "offset", "meta_offset", "segment", "meta_segment")
FIELDS = (*FIELDS, "meta_size", "code", "spare", "flags")
ITEMS = 100
INT64 = encode(pa.array([1], pa.int64()))[0]
STRING = encode(pa.array(["x"]))[0]


def _right(e: Edge, array: pa.Array | None = None) -> dict[str, int]:
    """The fields of an entry for an array that lies in a sample."""
    array = pa.array(range(ITEMS), pa.int64()) if array is None else array
    code, length, nulls, size, parts = encode(array)
    sample = e.pool.take(size)
    for at, data in parts:
        sample.write(at, data)
    fields = dict.fromkeys(FIELDS, 0)
    return fields | {
        "stamp": 1,
        "length": length,
        "nulls": nulls,
        "size": size,
        "offset": sample.offset,
        "segment": sample.segment.number,
        "code": code,
    }


def _push(e: Edge, fields: dict[str, int]) -> None:
    e.outlet.push(layout.ENTRY.pack(*fields.values()), fields["size"], fields["stamp"])


def _input(e: Edge) -> RingInput:
    return RingInput("in", e.inlet, Clock())


@pytest.fixture
def e() -> Iterator[Edge]:
    with edge() as made:
        yield made
        # pytest itself holds the edge for longer than its test.
        vars(made).clear()


def test_a_valid_entry_arrives(e: Edge) -> None:
    _push(e, _right(e))
    event = _input(e).take()
    assert event is not None
    assert event["value"].to_pylist() == list(range(ITEMS))


SEGMENT = 1 << 18  # what the pool makes for small samples


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 4 << 20},
        {"size": 4 << 20, "length": (4 << 20) // 8},
        {"offset": SEGMENT - 64},
        {"offset": 8},
        {"offset": 1 << 63},
        {"length": ITEMS + 1},
        {"length": 1 << 40},
        {"length": (1 << 64) - 1},
        {"nulls": 1},
        {"nulls": 1, "length": 1 << 40},
        {"segment": 77},
        {"segment": 0},
        {"meta_size": 193},
        {"meta_size": (1 << 32) - 1},
        {"meta_size": 5000, "meta_segment": 1, "meta_offset": SEGMENT - 64},
        {"meta_size": 8, "meta_segment": 99},
        {"code": 250},
        {"code": CODE_IPC},
        {"code": STRING},
    ],
)
def test_an_entry_with_a_wrong_field_is_an_error_and_counted(
    e: Edge, wrong: dict[str, int]
) -> None:
    right = _right(e)
    _push(e, right | wrong)
    _push(e, right)
    item = _input(e)
    event = item.take()
    assert event is not None
    assert event["type"] == "ERROR", event
    assert event["error"].startswith("a message on input 'in' cannot be read: ")
    after = item.take()
    assert after is not None
    assert after["value"].to_pylist() == list(range(ITEMS))
    seen = e.counters
    assert (seen.sent, seen.received, seen.dropped, seen.unreadable) == (2, 2, 0, 1)


def test_an_unreadable_entry_does_not_cost_a_slot(e: Edge) -> None:
    item = _input(e)
    right = _right(e)
    for _ in range(3 * layout.HAZARDS):
        _push(e, right | {"length": ITEMS - 1})
        assert (item.take() or {})["type"] == "ERROR"
    hazards = e.ring.base + layout.RING_HAZARDS
    assert not any(e.box.words[hazards : hazards + layout.HAZARDS])


@pytest.mark.parametrize("array", [pa.array(["ab", "cd"] * 50), pa.array([b"ab", None] * 50)])
@pytest.mark.parametrize("offset", [-1, 1 << 30, -(1 << 31)])
def test_offsets_outside_the_payload_are_an_error(e: Edge, array: pa.Array, offset: int) -> None:
    fields = _right(e, array)
    table = fields["offset"] + (16 if fields["nulls"] else 0)
    memory = e.pool.find(fields["segment"], fields["offset"]).segment.mapping.memory
    memory[table + 40 : table + 44] = struct.pack("=i", offset)
    _push(e, fields)
    assert (_input(e).take() or {})["type"] == "ERROR"


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["ab", None, "cd"] * 600),
        pa.array([1, None, 3] * 600),
        pa.array([["ab"], None, ["c", "d"]] * 600),
        pa.array(["x", "y"] * 600).dictionary_encode(),
        pa.array([{"a": "x"}, {"a": None}] * 600),
    ],
)
def test_changes_after_the_check_do_not_redirect_a_read(e: Edge, array: pa.Array) -> None:
    fields = _right(e, array)
    _push(e, fields)
    event = _input(e).take()
    assert event is not None
    sample = e.pool.find(fields["segment"], fields["offset"])
    assert sample is not None
    sample.write(0, b"\x7f" * fields["size"])
    value = event["value"]
    value.view(pa.binary()).validate(full=True) if value.type == pa.string() else value.validate(
        full=True
    )
    assert value.null_count == array.null_count


def test_the_null_count_of_a_sender_is_not_trusted(e: Edge) -> None:
    fields = _right(e, pa.array([1, None, 3, None]))
    _push(e, fields | {"nulls": 4})
    event = _input(e).take()
    assert event is not None
    assert event["value"].null_count == 2


@pytest.mark.parametrize(
    "metadata",
    [
        b"[" * 150,
        b"[1]",
        b'{"a":{"$time":"x"}}',
        b'{"a":{"$time":1e300}}',
        b'{"a":{"$time":99999999999999999999}}',
        b'{"$time":{}}',
        b'{"a":',
        b"\xff\xfe",
        b"",
    ],
)
def test_malformed_metadata_are_an_error_event(e: Edge, metadata: bytes) -> None:
    e.push(b"x", metadata)
    e.push(b"y")
    item = _input(e)
    event = item.take()
    assert event is not None
    assert event["type"] == ("ERROR" if metadata else "INPUT")
    assert (item.take() or {})["value"].to_pylist() == [ord("y")]


def test_metadata_nested_too_deeply_for_python_are_an_error_event(e: Edge) -> None:
    sample = e.pool.take(200_000)
    sample.write(0, b'{"a":' + b"[" * 199_995)
    fields = dict.fromkeys(FIELDS, 0) | {"stamp": 1, "meta_size": 200_000}
    fields |= {"meta_segment": sample.segment.number, "meta_offset": sample.offset}
    _push(e, fields)
    assert (_input(e).take() or {})["type"] == "ERROR"


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("head", [0, 3, 1 << 62, (1 << 64) - 1])
def test_an_overwritten_count_does_not_end_the_receiver(lane: bool, head: int) -> None:
    with edge(5, lane=lane) as e:
        item = _input(e)
        for n in range(8):
            e.push(bytes([n]), flags=layout.CORRELATED if n % 2 else 0)
            item.take()
        words, base = e.box.words, e.ring.base
        words[base + layout.RING_HEAD] = head
        if lane:
            words[base + layout.RING_LANE_HEAD] = head
        for _ in range(20):
            item.take()
            item.ready()
        # An honest sender rewrites its count: the receiver is right from the second message on.
        e.push(b"a")
        for _ in range(20):
            item.take()
        e.push(b"b")
        event = item.take()
        assert event is not None
        assert event["value"].to_pylist() == [ord("b")]


class _Racing:
    """Words, one of which grows with every read, as if its writer never paused."""

    def __init__(self, words: memoryview, at: int, step: int) -> None:
        self._words = words
        self._at = at
        self._step = step

    def __getitem__(self, at: Any) -> Any:
        if at == self._at:
            self._words[at] += self._step
        return self._words[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self._words[at] = value


@pytest.mark.parametrize(
    ("lane", "word"),
    [(False, layout.RING_HEAD), (True, layout.RING_HEAD), (True, layout.RING_LANE_HEAD)],
)
def test_a_sender_that_keeps_changing_its_count_does_not_block_receivers(
    lane: bool, word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Records of drops need real words.
    monkeypatch.setattr(hops, "dropped", None)
    with edge(lane=lane) as e:
        e.inlet._words = _Racing(e.box.words, e.ring.base + word, 1000)
        item = _input(e)
        done = threading.Event()

        def look() -> None:
            for _ in range(5):
                item.take()
                item.ready()
            done.set()

        threading.Thread(target=look, daemon=True).start()
        assert done.wait(20), "it is still looking"


def test_a_consumer_that_keeps_changing_its_count_does_not_block_readers_of_counters() -> None:
    with edge() as e:
        racing: Any = _Racing(e.box.words, e.ring.base + layout.RING_RECEIVED, 1)
        assert counters(racing, e.ring.base).sent == 0


@pytest.mark.long
@pytest.mark.parametrize("word", range(layout.RING_HEAD, layout.RING_WORDS))
@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("lane", [False, True])
def test_new_ends_work_whatever_is_in_their_words(word: int, value: int, lane: bool) -> None:
    with edge(lane=lane) as e:
        e.box.words[e.ring.base + word] = value
        e.outlet, e.inlet = e.new_outlet(), e.new_inlet()
        item = _input(e)
        for n in range(5):
            e.push(bytes([n]), flags=layout.CORRELATED if n % 2 else 0)
            for _ in range(3):
                item.take()
        e.outlet.refuse()
        e.outlet.full()
        _ = e.counters


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (layout.RING_CAPACITY, 1 << 40),
        (layout.RING_CAPACITY, 0),
        (layout.RING_CAPACITY, 24),
        (layout.RING_CAPACITY, 1 << 20),
        (layout.RING_QUEUE_SIZE, 0),
        (layout.RING_QUEUE_SIZE, 16),
        (layout.RING_QUEUE_SIZE, 1 << 63),
        (layout.RING_LANE, 8),
        (layout.RING_LANE, 1 << 62),
    ],
)
def test_an_overwritten_ring_is_not_used(e: Edge, word: int, value: int) -> None:
    assert ring_at(e.box.words, e.ring.base) == e.ring
    e.box.words[e.ring.base + word] = value
    with pytest.raises(layout.LayoutError, match="is damaged"):
        ring_at(e.box.words, e.ring.base)


def test_a_ring_outside_of_its_mailbox_is_not_used(e: Edge) -> None:
    with pytest.raises(layout.LayoutError, match="outside"):
        ring_at(e.box.words, len(e.box.words))


def test_an_unreadable_latched_message_is_one_error_event(e: Edge) -> None:
    e.box.words[e.ring.base + layout.RING_LATCHED] = 1
    e.outlet = LatchedOutlet(e.peer, e.ring, blocking=False)
    from dorad.shm.latch import LatchedInlet

    _push(e, _right(e) | {"size": 1 << 40})
    e.inlet = LatchedInlet(e.box, e.ring, e.segments, None)
    with pytest.raises(UnreadableError):
        e.inlet.take()
    e.inlet = LatchedInlet(e.box, e.ring, e.segments, None)
    item = _input(e)
    assert (item.take() or {})["type"] == "ERROR"
    assert item.take() is None


def test_a_timer_whose_words_are_overwritten_keeps_ticking(e: Edge) -> None:
    words, base = e.box.words, e.ring.base
    for at in (layout.RING_LAST, layout.RING_TAIL, layout.RING_RECEIVED, layout.RING_LATENCY_SUM):
        words[base + at] = (1 << 64) - 1
    timer = TimerInput("tick", e.box, e.ring, 1, 0)
    for _ in range(3):
        event = timer.take()
        assert event is not None
        assert event["id"] == "tick"
        for at in range(layout.RING_HEAD, layout.RING_STATE):
            words[base + at] = (1 << 64) - 1


def test_an_offset_outside_the_segment_finds_no_sample(e: Edge) -> None:
    sample = e.pool.take(1000)
    assert e.pool.find(sample.segment.number, sample.offset) is sample
    assert e.pool.find(sample.segment.number, 1 << 63) is None


@pytest.mark.long
def test_a_receiver_survives_random_entries() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "hwtests.fuzz", "--entries", "6000", "--seed", "4"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6000 entries" in ended.stdout
