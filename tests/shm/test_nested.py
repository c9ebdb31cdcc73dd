"""Arrays of nested types in a ring: sent and read by the native steps and in Python, bit by bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dorad.node.clock import Clock
from dorad.node.inputs import RingInput
from dorad.shm import arrow, layout, native, typedescription
from tests.shm import zoo
from tests.shm.edge import Edge, edge
from tests.shm.test_arrow import arrays
from tests.shm.test_native import Side

needs_native = pytest.mark.skipif(native.module is None, reason="the extension is not used")


def placed(array: pa.Array) -> tuple[int, int, int, bytes]:
    """Return an array as the twin in Python places it."""
    code, length, nulls, size, parts = arrow.encode(array)
    memory = bytearray(size)
    for at, data in parts:
        memory[at : at + len(data)] = data
    return code, length, nulls, bytes(memory)


def read(content: tuple[int, int, int, bytes], *, shared: bool = True) -> pa.Array:
    code, length, nulls, payload = content
    return arrow.decode(code, length, nulls, pa.py_buffer(payload), shared=shared)


@pytest.fixture
def side() -> Iterator[Side]:
    with edge() as e:
        made = Side(e)
        yield made
        vars(made).clear()
        vars(e).clear()


def test_every_type_of_the_zoo_arrives_as_it_was_sent() -> None:
    streams = set()
    for array in zoo.arrays():
        content = placed(array)
        for shared in (True, False):
            received = read(content, shared=shared)
            assert received.type.equals(array.type, check_metadata=True), array.type
            assert received.equals(array), array.type
            received.validate(full=True)
        if content[0] == layout.CODE_IPC:
            streams.add(str(array.type))
    assert not streams


@needs_native
def test_native_and_python_write_and_read_the_same_bytes(side: Side) -> None:
    for array in zoo.arrays():
        side.sender.send("out", array, None)
        ((_, _, (*head, payload, _)),) = side.edge.inlet.take_copies(1)
        code, length, nulls, wanted = placed(array)
        assert head == [code, length, nulls], array.type
        for at, data in arrow.encode(array)[4]:
            assert payload[at : at + len(data)] == bytes(memoryview(data)), array.type
        assert len(payload) == len(wanted)
        side.sender.send("out", array, None)
        received = (side.input.take() or {})["value"]
        assert received.type.equals(array.type, check_metadata=True), array.type
        assert received.equals(array), array.type
        assert received.buffers() == read((code, length, nulls, wanted)).buffers(), array.type
        received.validate(full=True)
        del received


@needs_native
@pytest.mark.parametrize("at", range(8))
def test_messages_of_robots_take_no_python(
    side: Side, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = list(zoo.messages())[at]
    side.sender.send("out", array, None)
    assert side.input.take() is not None  # the type is known from now on

    def unexpected(*_: Any, **__: Any) -> None:
        raise AssertionError("Python was asked")

    monkeypatch.setattr(arrow, "encode", unexpected)
    monkeypatch.setattr(side.sender, "_encode", unexpected)
    monkeypatch.setattr(arrow, "decode", unexpected)
    side.sender.send("out", array, None)
    assert (side.input.take() or {})["value"].equals(array)


@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(arrays())
def test_any_array_arrives_whoever_reads_it(array: pa.Array) -> None:
    received = read(placed(array))
    assert received.type == array.type
    assert received.equals(array)


def test_values_of_a_large_message_stay_in_shared_memory() -> None:
    array = pa.array([{"data": [1] * 10_000}], pa.struct([("data", pa.list_(pa.uint8()))]))
    code, length, nulls, payload = placed(array)
    buffer = pa.py_buffer(payload)
    received = arrow.decode(code, length, nulls, buffer)
    values = received.field("data").values.buffers()[1]
    assert buffer.address <= values.address < buffer.address + buffer.size


# -- hostile senders


def _change(content: tuple[int, int, int, bytes], at: int, new: bytes) -> tuple[int, ...]:
    code, length, nulls, payload = content
    at %= len(payload)
    return code, length, nulls, payload[:at] + new + payload[at + len(new) :]


BOXES = pa.array([[{"x": 1, "label": "a"}, {"x": 2, "label": "bb"}], None, []] * 300)


def _both(side: Side, content: tuple[int, int, int, bytes]) -> list[Any]:
    """Return what a receiver in C and one in Python say of a message: a text, or an array."""
    code, length, nulls, payload = content
    seen: list[Any] = []
    for let_native in (True, False):
        side.let_native(let_native)
        e: Edge = side.edge
        sample = e.pool.take(max(len(payload), 1))
        sample.write(0, payload)
        entry = layout.ENTRY.pack(
            *(1, length, nulls, len(payload), sample.offset, 0, sample.segment.number, 0, 0),
            *(code, 0, 0),
        )
        e.outlet.push(entry, len(payload), 1)
        event = RingInput("in", e.inlet, Clock()).take()
        assert event is not None
        seen.append(event["error"] if event["type"] == "ERROR" else event["value"])
        e.pool.sent(sample, [])
    return seen


@pytest.mark.long
@needs_native
@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=3),
    st.sampled_from([0, 0, 0, -1, 1, 8, 1 << 20, 1 << 55, 1 << 63]),
)
@example(3, [(4, b"\xff\xff")], 0)
def test_both_receivers_agree_on_a_message_with_wrong_bytes(
    which: int, wrong: list[tuple[int, bytes]], longer: int
) -> None:
    array = _ZOO[which * 7 % len(_ZOO)]
    content: Any = placed(array)
    for at, new in wrong:
        if content[3]:
            content = _change(content, at, new)
    content = (content[0], content[1] + longer & (1 << 64) - 1, *content[2:])
    with edge() as e:
        one, other = _both(Side(e), content)
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
        else:
            assert one.type.equals(other.type, check_metadata=True)
            assert one.buffers() == other.buffers()
            assert len(one) == len(other)
        del one, other
        vars(e).clear()


_ZOO = list(zoo.arrays())


def _payload_of(description: bytes, nodes: int, parts: bytes = b"") -> bytes:
    head = struct.pack("=I", len(description)) + description + bytes(nodes)
    return head + bytes(-len(head) % 8) + parts


def _list(name: bytes = b"") -> bytes:
    return bytes((2, 2, len(name))) + b"+l" + struct.pack("=H", 1) + name


@needs_native
@pytest.mark.parametrize(
    ("description", "nodes", "text"),
    [
        (_list() * 1000 + bytes((2, 1, 0)) + b"n", 1001, "nested too deeply"),
        (
            bytes((2, 2, 0))
            + b"+s"
            + struct.pack("=H", 10_000)
            + (bytes((2, 1, 0)) + b"n") * 10_000,
            10_001,
            "too many fields",
        ),
        (bytes((2, 2, 0)) + b"+s" + struct.pack("=H", 3), 1, "cut off"),
        (bytes((255, 1, 0)) + b"n", 1, "unknown flags"),
        (bytes((2, 1, 0)) + b"?", 1, "type cannot be read"),
        (bytes((2, 3, 0)) + b"+ud", 1, "cut off"),
        (bytes((2, 2, 0)) + b"vu", 1, "has no form"),
        (bytes((2, 1, 200)) + b"n", 1, "cut off"),
        (bytes((2 | 16, 1, 0)) + b"n" + struct.pack("=Ii", 4, -1), 1, "malformed metadata"),
        (bytes((2 | 16, 1, 0)) + b"n" + struct.pack("=Iii", 8, 1, 99), 1, "malformed metadata"),
        (bytes((2, 1, 0)) + b"nn", 1, "behind its end"),
        (b"", 0, "cut off"),
        (_list() + bytes((2 | 8, 2, 0)) + b"+s" + struct.pack("=H", 0), 2, ""),
    ],
)
def test_a_type_that_is_not_right_is_an_error(
    side: Side, description: bytes, nodes: int, text: str
) -> None:
    one, other = _both(side, (layout.CODE_NESTED, 1, 0, _payload_of(description, nodes, bytes(64))))
    assert one == other
    assert isinstance(one, str)
    assert text in one


@needs_native
def test_a_map_with_a_null_as_key_does_not_end_the_receiver(side: Side) -> None:
    keys = pa.array([[("k", 1), ("l", 2)]], pa.map_(pa.string(), pa.int32()))
    code, length, nulls, payload = placed(keys)
    # Nodes: map, entries, keys, items. Their marks stand behind the description.
    size = struct.unpack_from("=I", payload)[0]
    marks = bytearray(payload[4 + size : 8 + size])
    marks[2] = 1
    head = payload[: 4 + size] + marks
    parts = struct.pack("=ii", 0, 2) + bytes([1]).ljust(8, b"\0")  # the second key is null
    parts += struct.pack("=iii4x", 0, 1, 2) + b"kl".ljust(8, b"\0") + struct.pack("=ii", 1, 2)
    one, other = _both(side, (code, length, nulls, head + bytes(-len(head) % 8) + parts))
    assert one == other
    assert "a key of a map is null" in one


@needs_native
@pytest.mark.parametrize("value", [-1, 1 << 30, -(1 << 31), 7])
def test_offsets_that_go_backwards_or_outside_are_an_error(side: Side, value: int) -> None:
    content = placed(BOXES)
    description = typedescription.describe(BOXES.type)
    assert description is not None
    # Behind the head and the bitmap of the list.
    offsets = (4 + len(description) + 4 + 7 & ~7) + ((900 + 7) // 8 + 7 & ~7)
    changed: Any = _change(content, offsets + 400, struct.pack("=i", value))
    one, other = _both(side, changed)
    assert one == other
    assert isinstance(one, str), value


@needs_native
def test_an_index_outside_its_dictionary_is_an_error(side: Side) -> None:
    array = pa.array(["a", "b"] * 2000).dictionary_encode()
    description = typedescription.describe(array.type)
    assert description is not None
    at = (4 + len(description) + 2 + 7) & ~7
    for index in (2, -1, 1 << 30):
        changed: Any = _change(placed(array), at + 400, struct.pack("=i", index))
        one, other = _both(side, changed)
        assert one == other
        assert isinstance(one, str)


@needs_native
def test_a_type_that_changes_with_each_message_costs_no_more_memory(side: Side) -> None:
    for number in range(300):
        array = pa.array([{f"field{number}": number}])
        side.sender.send("out", array, None)
        assert (side.input.take() or {})["value"].equals(array)
    assert len(typedescription._described) <= typedescription._KNOWN
    assert typedescription.read_description.cache_info().currsize <= 256


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a" * 40], pa.string_view()),
        pa.RunEndEncodedArray.from_arrays([2, 5], ["x", "y"]),
        pa.array([{"n" * 300: 1}]),
        pa.StructArray.from_arrays([pa.array([1])] * 2000, [str(n) for n in range(2000)]),
    ],
    ids=["view", "run-end", "long name", "many fields"],
)
def test_types_without_a_form_travel_as_a_stream(array: pa.Array) -> None:
    content = placed(array)
    assert content[0] == layout.CODE_IPC
    assert read(content).equals(array)
