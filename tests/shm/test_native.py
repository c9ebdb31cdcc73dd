"""The native steps beside the Python ones: the same words in shared memory, the same events."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as dataset
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dorad.node.clock import Clock
from dorad.node.connection import DaemonConnection
from dorad.node.inputs import RingInput
from dorad.node.sender import Sender
from dorad.node.sharedarrays import SharedArrays
from dorad.shm import layout, native
from dorad.shm.arrow import encode
from dorad.shm.hoplog import HopCursor
from dorad.shm.hops import output_key
from dorad.shm.inlet import Inlet, UnreadableError
from tests.harness.waiting import until
from tests.shm.edge import Edge, comparable, edge

pytestmark = pytest.mark.skipif(
    native.module is None, reason=f"the extension is not used: {native.describe()}"
)

FUTURE = 1 << 62
"""Later than any wall clock, so that timestamps count up from here, alike on both sides."""

KEEP = 1 << 30


class _Connection(DaemonConnection):
    """A connection without a daemon, to one edge."""

    def __init__(self, e: Edge) -> None:
        self.box = e.box
        self.mail = self.packets_handled = 0
        self.lost = self.watched = False
        self.outlets = {"out": (e.outlet,)}
        self.late_outputs = set()
        self.grow = e._grow
        self.retire = e.retired.append
        self.edge = e

    def grow_ahead(self, size: int, arrived: Any) -> bool:
        arrived(self.edge._grow(size))
        return True


class Side:
    """A sender and a receiver with their edge."""

    def __init__(self, e: Edge) -> None:
        self.edge = e
        e.outlet.output = output_key("out")
        self.sender = Sender(_Connection(e), Clock(), KEEP)
        self.sender._clock.last = FUTURE
        self.sender._encode = encode
        self.refused: list[int] = []
        self.input = RingInput("in", e.inlet, Clock(self.refused.append))
        self.held: list[Any] = []
        self.own: list[Any] = []
        self.native = True

    def let_native(self, native: bool) -> None:
        """Choose who does the next steps; ends that are not plain are left to Python."""
        self.native = self.edge.outlet.plain = self.edge.inlet.plain = native

    def send(self, data: Callable[[Side], Any], metadata: dict[str, Any] | None) -> str:
        try:
            self.sender.send("out", data(self), metadata)
        except (TypeError, OverflowError, RuntimeError) as error:
            return f"{type(error)} {error}"
        return ""

    def take(self, hold: bool) -> Any:
        event = self.input.take()
        if event is None:
            return None
        if hold:
            self.held.append(event)
        if event["type"] == "ERROR":
            return event
        value = event["value"]
        metadata = [(key, type(part), part) for key, part in event["metadata"].items()]
        # As text, a NaN is like another, and -0.0 is not 0.
        return repr(([*event], event["id"], metadata)), value.type, _items(value)

    def take_copies(self, limit: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < limit:
            try:
                copies = self.edge.inlet.take_copies(limit - len(found))
            except UnreadableError as error:
                found.append(str(error))
                continue
            if not copies:
                break
            found += copies
        return found

    def take_entry(self, hold: bool) -> Any:
        try:
            taken = self.edge.inlet.take()
        except UnreadableError as error:
            return str(error)
        if taken is None:
            return None
        *fields, payload, borrow, offset, metadata = taken
        if borrow is not None:
            payload = bytes(memoryview(borrow.mapping.memory)[offset : offset + fields[-1]])
        if hold:
            self.held.append(taken)
        return fields, payload, borrow is None, offset, metadata

    def push(self, content: tuple[int, ...], metadata: bytes, in_sample: bool) -> None:
        payload, pool, sample = b"p" * content[4], self.sender.pool, None
        if in_sample:
            sample, payload = pool.take(len(payload)), b""
            sample.write(0, b"p" * content[4])
        pool.push((self.edge.outlet,), content, metadata, payload, sample)

    def drop(self, at: int) -> None:
        if self.held:
            del self.held[at % len(self.held)]

    def own_one(self, data: Callable[[Side], Any]) -> None:
        self.own.append(data(self))

    def send_own(self, at: int) -> str:
        return self.send(lambda one: one.own[at % len(one.own)], None) if self.own else ""

    def drop_own(self, at: int) -> None:
        if self.own:
            del self.own[at % len(self.own)]

    def memory(self) -> list[bytes]:
        """Return the memory of all samples, for comparison."""
        return [each.memory[:] for each in self.edge.segments.values()]

    def fields(self) -> tuple[Any, ...]:
        """What is in the heap, for comparison."""
        inlet, outlet, pool = self.edge.inlet, self.edge.outlet, self.sender.pool
        lines = [
            [[(s.key, s.held) for s in line] for line in lines]
            for lines in (pool._free, pool._flying)
        ]
        return (
            (inlet.tail, inlet._received, inlet._latency, inlet._latency_sum, inlet._free),
            (outlet.head, outlet._bytes),
            (self.sender._clock.last, self.sender._trim_due_ns, self.input.clock.last),
            self.refused,
            lines,
            [(each.encoded, each.sample.key, each.array() is None) for each in self._known()],
            [sample.key for sample in pool.returned],
        )

    def _known(self) -> list[Any]:
        return list(self.sender.shared_arrays._known.values())


@contextmanager
def side(queue_size: int = 3) -> Iterator[Side]:
    with edge(queue_size) as e:
        made = Side(e)
        yield made
        vars(made).clear()
        vars(e).clear()


# -- what is sent -----------------------------------------------------------------------------

KINDS = [pa.int8(), pa.int64(), pa.uint8(), pa.uint32(), pa.float16(), pa.float64(), pa.bool_()]
KINDS += [pa.date32()]


@st.composite
def arrays(draw: st.DrawFn) -> Callable[[Side], Any]:
    """Arrays that the native step sends, sliced or not, and some that it leaves to Python."""
    kind = draw(st.sampled_from(KINDS))
    length = draw(st.sampled_from([0, 1, 7, 8, 24, 25, 600, 600]))
    numbers = np.arange(length, dtype="int64") % 100
    array = pa.array(numbers % 2 == 0) if kind == pa.bool_() else _of(kind, numbers)
    start = draw(st.sampled_from([0, 0, 1, 8]))
    array = array.slice(start, draw(st.sampled_from([length, 5])))
    if draw(st.integers(0, 9)) == 0:
        array = pa.array([None, *array.to_pylist()], kind)
    return lambda _: array


def _of(kind: pa.DataType, numbers: Any) -> pa.Array:
    if kind == pa.float16():
        return pa.array(numbers.astype("float16"))
    return pa.array(numbers).cast(pa.int32() if kind == pa.date32() else kind).cast(kind)


@st.composite
def shared(draw: st.DrawFn) -> Callable[[Side], Any]:
    """Arrays from `empty`, as they are or as a view."""
    length = draw(st.sampled_from([1, 10, 100, 5000]))
    dtype = draw(st.sampled_from(["uint8", "int64", "float32"]))
    view = draw(st.sampled_from(["whole", "arrow", "part", "flat"]))

    def make(one: Side) -> Any:
        # A keyword is not native.
        empty = one.sender.empty
        array = empty(length, dtype) if one.native else empty(length, dtype=dtype)
        array[:] = np.arange(length).astype(dtype)
        if view == "arrow":
            return pa.array(array)
        if view == "part":
            return array[: length // 2 + 1]
        return array.reshape(1, -1) if view == "flat" else array

    return make


BIG = pa.array(range(9000), pa.int64())
"""A segment holds two samples of its size, so that they are soon in use again."""

OTHERS: list[Any] = [b"", b"x" * 192, b"x" * 193, bytearray(b"x"), ["no array"]]
OTHERS += [pa.array(["a", None]), pa.array([[1], [2, 3]]), pa.nulls(3)]
OTHERS += [pa.array([1, 2]).dictionary_encode()]
others = st.sampled_from(OTHERS).map(lambda data: lambda _: data)

texts = st.one_of(
    st.text(max_size=8), st.sampled_from(["plain", 'quo"te', "back\\slash", "\x7f", "$time", "é"])
)
values = st.one_of(
    st.booleans(),
    st.none(),
    texts,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([0, -1, 10**17, 10**18, 1 << 63, -(1 << 63) - 1]),
    st.floats(),
    st.sampled_from([-0.0, 1e300, 1e-7, 0.1, 1e16, math.inf]),
    st.lists(st.integers(0, 5), max_size=3),
)
KEYS = st.one_of(texts, st.sampled_from(["timestamp", "flush", "request_id", "seq", "name"]))
plain = st.dictionaries(
    st.sampled_from(["seq", "name", "x", "on", "timestamp"]),
    st.one_of(
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0, -1, 0.1, 1e300, 1e-7, "cam", "a longer name"]),
    ),
    max_size=4,
)
metadata = st.one_of(st.none(), plain, plain, st.dictionaries(KEYS, values, max_size=5))

ops = st.one_of(
    st.tuples(st.just("send"), st.one_of(arrays(), arrays(), shared(), others), metadata),
    *[st.tuples(st.just("send"), arrays(), st.one_of(st.none(), plain))] * 4,
    *[st.tuples(st.just("send"), st.just(lambda _: BIG), st.none())] * 2,
    *[st.tuples(st.just("take"), st.booleans())] * 4,
    st.tuples(st.just("drop"), st.integers(0, 40)),
    st.tuples(st.just("own"), shared()),
    st.tuples(st.sampled_from(["send own", "drop own"]), st.integers(0, 5)),
    st.tuples(st.just("take copies"), st.integers(0, 4)),
    *[st.tuples(st.just("take entry"), st.booleans())] * 2,
    *[
        st.tuples(
            st.just("push"),
            st.tuples(
                st.sampled_from([1, FUTURE]),
                st.integers(0, 255),
                st.sampled_from([0, 8, (1 << 63) - 1]),
                st.sampled_from([0, 1]),
                st.sampled_from([1, 8, 100, 192, 193, 5000, 9000]),
                st.sampled_from([0, 1, 3]),
            ),
            st.sampled_from([b"", b"{}", b"m" * 92, b"m" * 192, b"m" * 193, b"m" * 5000]),
            st.booleans(),
        )
    ]
    * 2,
    st.tuples(
        st.just("entry"),
        st.tuples(
            st.sampled_from([0, 1, FUTURE, (1 << 64) - 1]),
            st.sampled_from([0, 1, 8, 64, 1 << 40, (1 << 64) - 1]),
            st.sampled_from([0, 0, 0, 1, 1 << 63]),
            st.sampled_from([0, 8, 64, 192, 193, 1 << 18, (1 << 64) - 1]),
            st.sampled_from([0, 64, 8, 1 << 18, (1 << 18) - 64, (1 << 64) - 64]),
            st.sampled_from([0, 64]),
            st.sampled_from([0, 0, 1, 2, 77]),
            st.sampled_from([0, 0, 0, 1]),
            st.sampled_from([0, 2, 2, 192, 193, (1 << 32) - 1]),  # 2: as it is
            st.integers(0, 255),
            st.just(0),
            st.just(0),
        ),
        st.sampled_from([b"", b"{}", b'{"a":1}', b'{"a":01}', b'{"a":1}}', b'{"a":1,}', b"[1]"]),
    ),
    st.tuples(st.just("later"), st.just(6_000_000_000)),
    st.tuples(st.just("head"), st.integers(-30, 30)),
)


def apply(one: Side, op: tuple[Any, ...]) -> Any:
    match op:
        case "send", data, meta:
            return one.send(data, meta)
        case "take", hold:
            return one.take(hold)
        case "take copies", limit:
            return one.take_copies(limit)
        case "take entry", hold:
            return one.take_entry(hold)
        case "push", content, meta, in_sample:
            return one.push(content, meta, in_sample)
        case "drop", at:
            return one.drop(at)
        case "own", data:
            return one.own_one(data)
        case "send own", at:
            return one.send_own(at)
        case "drop own", at:
            return one.drop_own(at)
        case "entry", fields, rest:
            if fields[8] == 2:
                fields = (*fields[:8], len(rest), *fields[9:])
            one.edge.outlet.push(layout.ENTRY.pack(*fields) + rest, 0, fields[0])
            return None
        case "later", nanos:
            one.sender._clock.last += nanos
            return None
        case "head", change:
            words, at = one.edge.box.words, one.edge.ring.base + layout.RING_HEAD
            words[at] = max(0, words[at] + change)
            return None
    raise AssertionError(op)


@pytest.mark.long
@pytest.mark.timeout(900)  # under a sanitizer, or emulated
@pytest.mark.filterwarnings("ignore:metadata")
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(ops, st.booleans()), min_size=25, max_size=60), st.sampled_from([1, 3, 40])
)
def test_both_leave_the_same_words_and_events(
    steps: list[tuple[tuple[Any, ...], bool]], queue_size: int
) -> None:
    with ExitStack() as stack:
        sides = [stack.enter_context(side(queue_size)) for _ in range(3)]
        cursor = HopCursor()
        for op, by_native in steps:
            for one, choice in zip(sides, (True, False, by_native), strict=True):
                one.let_native(choice)
            first, *rest = [apply(one, op) for one in sides]
            gc.collect(0)
            assert rest == [first, first], op
            first, *rest = [one.fields() for one in sides]
            assert rest == [first, first], op
            first, *rest = [comparable(one.edge.box.words, cursor) for one in sides]
            assert rest == [first, first], op
            *_, cursor = first
        memory = [one.memory() for one in sides]
        assert memory[0] == memory[1] == memory[2]


def _items(value: pa.Array) -> list[Any]:
    """Return what `to_pylist` does; of plain arrays a hundred times faster.

    Random words may say that there are 2^40 nulls, which need no memory until they are a list.
    """
    if pa.types.is_null(value.type):
        return [len(value)]
    if value.null_count or not pa.types.is_primitive(value.type):
        return value.to_pylist()
    return value.to_numpy(zero_copy_only=False).tolist()


# -- what the comparison cannot show -----------------------------------------------------------


def _refuse(*_: object) -> Any:
    raise AssertionError("Python has done what is native")


@pytest.mark.parametrize("data", [pa.array([1, 2]), b"bytes", pa.array([1.5] * 9000), None])
def test_plain_messages_are_sent_and_taken_by_the_native_steps(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with side() as one:
        for expected in (
            "python",
            "native",
        ):  # The first message imports Arrow, and adds a segment.
            if expected == "native":
                monkeypatch.setattr(Sender, "_push", _refuse)
                monkeypatch.setattr(SharedArrays, "empty", _refuse)
                monkeypatch.setattr(Inlet, "take", _refuse)
            sent = one.sender.empty((90, 100), "int64") if data is None else data
            one.sender.send("out", sent, {"seq": 1, "name": "cam", "x": 0.5, "on": True})
            event = one.input.take()
            assert event is not None
            assert event["type"] == "INPUT"
            assert event["metadata"]["name"] == "cam"
            del event


def test_a_shape_that_numpy_refuses_costs_no_memory() -> None:
    with side() as one:
        one.sender.empty(1_000_000, "uint8")
        for _ in range(3):
            with pytest.raises(ValueError, match="dimension"):
                one.sender.empty((1,) * 64 + (1_000_000,), "uint8")
        assert len(one.edge.segments) == 1


def test_the_time_on_the_way_is_counted_as_in_python() -> None:
    with side() as one:
        for late in (5_000_000, 2_000_000):
            one.edge.push(b"x", stamp=time.time_ns() - late)
            one.take(False)
        found = one.edge.counters
        assert 7_000_000 <= found.latency_sum < 1 << 40
        assert found.latency_diff > 0
        one.edge.push(b"x", stamp=1)
        one.take(False)
        assert one.edge.counters.latency_sum == found.latency_sum


def test_the_mailbox_stays_mapped_for_as_long_as_an_array_lies_in_a_sample() -> None:
    with side() as one:
        one.send(lambda _: pa.array(range(1000)), None)
        event = one.input.take()
        assert event is not None
        value = event["value"]
    del one, event
    gc.collect()
    assert value.to_pylist() == list(range(1000))
    del value
    gc.collect()


def test_a_sample_is_given_back_when_another_thread_frees_its_array() -> None:
    with side() as one:
        one.send(lambda _: pa.array(range(1000)), None)
        event = one.input.take()
        assert event is not None
        free = len(one.edge.inlet._free)
        values = [event.pop("value")]
        schema = pa.schema([("value", values[0].type)])
        # One of Arrow's threads filters the values, and frees them without the interpreter lock.
        batches = (pa.record_batch([values.pop()], schema=schema) for _ in "1")
        upper = dataset.field("value") >= 500
        scanner = dataset.Scanner.from_batches(batches, schema=schema, filter=upper)
        assert scanner.to_table().num_rows == 500
        asyncio.run(until(lambda: len(one.edge.inlet._free) > free))
        assert not any(one.edge.inlet._words[slot] for slot in one.edge.inlet._free)


@given(st.integers(0, (1 << 64) - 1))
@example(0)
@example((1 << 64) - 1)
@example(500)  # half a microsecond: to even
@example(1500)
@example(1_999_999_500)
@example(1_999_999_999)  # the next second
@example(951_782_400 * 10**9 - 1)  # before a leap day
def test_a_message_has_the_time_of_its_stamp(stamp: int) -> None:
    with side() as one:
        one.edge.push(b"x", stamp=stamp)
        event = one.input.take()
        assert event is not None
        assert event["metadata"]["timestamp"] == datetime.fromtimestamp(stamp / 1e9, UTC)


@pytest.mark.parametrize("name", [n for n in dir(native.module or object) if n.endswith("State")])
def test_a_native_type_has_every_field_of_its_twin(name: str) -> None:
    import inspect
    import re
    from importlib import import_module

    places = ("dorad.shm.mapping", "dorad.shm.inlet", "dorad.shm.outlet")
    places += ("dorad.shm.pool", "dorad.shm.spin")
    places += ("dorad.node.clock", "dorad.node.connection", "dorad.node.sharedarrays")
    places += ("dorad.node.sender", "dorad.node.inputs", "dorad.node.nodeinputs")
    places += ("dorad.node.receiver",)
    places += ("dorad.link.incoming", "dorad.link.machine", "dorad.link.direct")
    for place in places:
        source = inspect.getsource(import_module(place))
        found = re.search(rf"^class {name}:\n.*?__slots__ = \((.*?)\)\n\n", source, re.M | re.S)
        if found:
            slots = set(re.findall(r'"(\w+)"', found[1]))
            members = vars(getattr(native.module, name))
            assert slots == {key for key in members if not key.startswith("__")} - STEPS
            return
    pytest.fail(f"{name} has no twin")


STEPS = {"push", "send", "empty", "take", "take_copies", "poll", "wait", "next", "sleep"}
