"""The codecs on definitions and data at random: round trips, and hostile bytes."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.ros2.arrowtypes import ConversionError, arrow_type
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.definitions import Field, Item, Many, Message, Number, Text
from dorad.ros2.encode import encoder
from dorad.ros2.layout import SIZES

_numbers = st.sampled_from(sorted(SIZES)).map(Number)
_texts = st.builds(Text, st.booleans(), st.sampled_from([0, 3]))
_many = (
    st.none() | st.builds(Many, st.integers(1, 4), st.booleans()) | st.just(Many(0, fixed=False))
)
_serial = iter(range(10**9))


def _message(items: list[tuple[Item, Many | None]]) -> Message:
    fields = tuple(Field(f"f{number}", *each) for number, each in enumerate(items))
    name = f"test/msg/M{next(_serial)}"
    return Message(name, name, fields)


def _messages(items: st.SearchStrategy[Item], least: int = 0) -> st.SearchStrategy[Message]:
    return st.lists(st.tuples(items, _many), min_size=least, max_size=4).map(_message)


_types = _messages(
    _numbers | _texts | _messages(_numbers) | _messages(_numbers | _texts | _messages(_numbers, 1))
)


def _value(item: Item) -> st.SearchStrategy[object]:
    match item:
        case Number("bool"):
            return st.booleans()
        case Number("float32" | "float64" as name):
            return st.floats(width=32 if name == "float32" else 64, allow_nan=False)
        case Number(name):
            bits = 8 * SIZES[name]
            low = 0 if name.startswith("u") else -(2 ** (bits - 1))
            return st.integers(low, low + 2**bits - 1)
        case Text(wide, limit):
            texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
            return (
                texts.filter(lambda text: not limit or len(text.encode("utf-16-le")) // 2 <= limit)
                if wide
                else texts.filter(lambda text: not limit or len(text.encode()) <= limit)
            )
        case Message():
            return st.fixed_dictionaries({each.name: _field(each) for each in item.fields})


def _field(field: Field) -> st.SearchStrategy[object]:
    if field.many is None:
        return _value(field.item)
    size, fixed = field.many.size, field.many.fixed
    least, most = (size, size) if fixed else (0, size or 5)
    return st.lists(_value(field.item), min_size=least, max_size=most)


@st.composite
def _typed(draw: st.DrawFn) -> tuple[Message, object]:
    message = draw(_types)
    return message, draw(_value(message))


@given(_typed())
def test_what_is_written_is_read_again(typed: tuple[Message, object]) -> None:
    message, value = typed
    array = pa.array([value], arrow_type(message))
    cdr = encoder(message)(array)
    found = decoder(message)(cdr)
    found.validate(full=True)
    assert found.equals(array)
    assert encoder(message)(found) == cdr


@given(_typed(), st.data())
def test_hostile_bytes_are_refused_or_are_a_message(
    typed: tuple[Message, object], data: st.DataObject
) -> None:
    message, value = typed
    cdr = bytearray(encoder(message)(pa.array([value], arrow_type(message))))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(cdr) - 1))
        cdr[place] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    if data.draw(st.booleans()):
        del cdr[data.draw(st.integers(0, len(cdr))) :]
    try:
        found = decoder(message)(bytes(cdr))
    except CdrError:
        return
    found.validate(full=True)


@given(_types, st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_a_message(message: Message, body: bytes) -> None:
    try:
        found = decoder(message)(b"\x00\x01\x00\x00" + body)
    except CdrError:
        return
    found.validate(full=True)


def _single(item: Item, many: Many | None = None, default: object = None) -> Message:
    name = f"test/msg/S{next(_serial)}"
    return Message(name, name, (Field("data", item, many, default),))


def test_a_length_beyond_the_message_allocates_nothing() -> None:
    names = Message("test/msg/Names", "names", (Field("name", Text(False, 0), None),))
    for item in (Number("float64"), Text(False, 0), Text(True, 0), names):
        message = _single(item, Many(0, fixed=False))
        with pytest.raises(CdrError, match="ends"):
            decoder(message)(b"\x00\x01\x00\x00\xff\xff\xff\xff" + bytes(64))


@pytest.mark.parametrize(
    "item",
    [
        Text(False, 0),
        Text(True, 0),
        Message("test/msg/Named", "named", (Field("f", Text(False, 0), None),)),
        Message("test/msg/Nothing", "nothing", ()),
    ],
)
def test_a_long_sequence_is_read_whole(item: Item) -> None:
    message = _single(item, Many(0, fixed=False))
    value = {"test/msg/Named": {"f": "x"}, "test/msg/Nothing": {}}.get(
        getattr(item, "name", ""), "y"
    )
    array = pa.array([{"data": [value] * 5000}], arrow_type(message))
    found = decoder(message)(encoder(message)(array))
    found.validate(full=True)
    assert found.equals(array)


def test_a_large_image_is_a_slice_of_its_message() -> None:
    message = _single(Number("uint8"), Many(0, fixed=False))
    cdr = encoder(message)(pa.array([{"data": b"x" * 1_000_000}], arrow_type(message)))
    before = pa.total_allocated_bytes()
    found = decoder(message)(cdr)
    assert pa.total_allocated_bytes() - before < 10_000
    assert found.field("data").values.buffers()[1].size == 1_000_000


@pytest.mark.parametrize("cdr", [b"", b"\x00", b"\x00\x00\x00\x00\x01", b"\x00\x07\x00\x00\x01"])
def test_another_encoding_is_refused(cdr: bytes) -> None:
    with pytest.raises(CdrError, match="little-endian"):
        decoder(_single(Number("uint8")))(cdr)


@pytest.mark.parametrize(
    ("item", "many", "given"),
    [
        (Number("int32"), None, pa.array([7])),
        (Number("float32"), None, pa.array([7])),
        (Text(False, 0), None, pa.array(["x"], pa.large_string())),
        (Number("uint8"), Many(0, fixed=False), pa.array([b"\x01\x02"])),
        (Number("uint8"), Many(2, fixed=True), pa.array([b"\x01\x02"], pa.large_binary())),
        (Number("float64"), Many(2, fixed=True), pa.array([[1, 2]], pa.list_(pa.int8(), 2))),
        (
            Number("float64"),
            Many(0, fixed=False),
            pa.array([[1.0, 2.0]], pa.large_list(pa.float64())),
        ),
    ],
)
def test_data_of_a_similar_type_is_converted(
    item: Item, many: Many | None, given: pa.Array
) -> None:
    message = _single(item, many)
    array = pa.StructArray.from_arrays([given], ["data"])
    found = decoder(message)(encoder(message)(array)).field("data")[0].as_py()
    wanted = given[0].as_py()
    assert (bytes(found) if isinstance(wanted, bytes) else found) == wanted


def test_fields_that_are_missing_get_their_defaults() -> None:
    inner = Message("test/msg/I", "i", (Field("x", Number("float64"), None, 1.5),))
    fields = (
        Field("a", Number("int32"), None, 5),
        Field("b", inner, None),
        Field("c", Number("uint8"), Many(3, fixed=True)),
        Field("d", Text(False, 0), None),
    )
    message = Message("test/msg/D", "d", fields)
    array = pa.array([{"d": "x"}])
    assert decoder(message)(encoder(message)(array)).to_pylist() == [
        {"a": 5, "b": {"x": 1.5}, "c": [0, 0, 0], "d": "x"}
    ]


@pytest.mark.parametrize(
    ("item", "many", "value", "words"),
    [
        (Number("int8"), None, 300, "300 not in range"),
        (Number("int8"), None, None, "null"),
        (Number("int8"), Many(0, fixed=False), [1, None], "null"),
        (Number("int8"), Many(2, fixed=True), [1], "has 2 items, not 1"),
        (Number("int8"), Many(2, fixed=False), [1, 2, 3], "at most 2 items, not 3"),
        (Text(False, 2), None, "xyz", "at most 2 characters, not 3"),
        (Text(False, 2), None, 1.5, "must be string, not double"),
        (Number("int8"), None, "5", "must be int8, not string"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    item: Item, many: Many | None, value: object, words: str
) -> None:
    message = _single(item, many)
    with pytest.raises(ConversionError, match=words):
        encoder(message)(pa.array([{"data": value}]))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ConversionError, match="has no field `date`"):
        encoder(_single(Number("int8")))(pa.array([{"date": 1}]))
