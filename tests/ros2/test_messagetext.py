"""Definitions as text: what is written is read again, and what ROS 2 writes is understood."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.ros2.arrowtypes import ConversionError, arrow_type
from dorad.ros2.decode import decoder, stamp_reader
from dorad.ros2.definitions import DefinitionError, Field, Many, Message, Number, Text
from dorad.ros2.encode import encoder, with_stamp
from dorad.ros2.messagetext import definition_text, parse_definition
from tests.ros2.test_codec import _typed

SEPARATOR = "=" * 80

IMAGE = f"""\
# This message contains an image
#
std_msgs/Header header # Header timestamp
uint32 height                # image height,
string encoding  # =
uint8    is_bigendian
int8 DEFAULT=-1
string NAME = "a # b"
float32 gain 1.5
uint8[] data          # actual matrix data
{SEPARATOR}
MSG: std_msgs/Header
# Standard metadata
builtin_interfaces/Time stamp
string frame_id
{SEPARATOR}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""


def shape(message: Message) -> object:
    """Return all of a definition that is on the wire."""
    return [
        (each.name, shape(each.item) if isinstance(each.item, Message) else each.item, each.many)
        for each in message.fields
    ]


@given(_typed())
def test_what_is_written_is_read_again(typed: tuple[Message, object]) -> None:
    message, value = typed
    found = parse_definition(message.name, definition_text(message))
    assert (found.name, shape(found)) == (message.name, shape(message))
    array = pa.array([value], arrow_type(message))
    assert decoder(found)(encoder(message)(array)).equals(array)


DEFAULTS = """\
float64 w 1
float32[] gains [0.5, -1]
bool on true
bool[2] both [true, false]
string name "a \\u0023 \\"b"
string<=9 word 'it'
string bare words
int8 count -3
string[] names ["x", "y"]
int8 wrong "x"
uint8 large [1
geometry_msgs/Point p 5
====
MSG: geometry_msgs/Point
float64 x
"""


def test_defaults_are_read_and_written() -> None:
    message = parse_definition("pkg/msg/Name", DEFAULTS)
    values = [each.default for each in message.fields]
    assert values == [
        *(1, [0.5, -1], True, [True, False], 'a # "b', "it", "words", -3, ["x", "y"]),
        *(None, None, None),
    ]
    again = parse_definition("pkg/msg/Name", definition_text(message))
    assert [each.default for each in again.fields] == values


@given(st.text() | st.lists(st.sampled_from("a uint8[] x\nMSG: a/b\n====\n#=<[]")).map("".join))
def test_any_text_is_refused_or_is_a_definition(text: str) -> None:
    try:
        arrow_type(parse_definition("pkg/msg/Name", text))
    except DefinitionError:
        return


@pytest.mark.parametrize(
    "text", [IMAGE, IMAGE.replace("\n", "\r\n"), IMAGE.replace("_msgs/", "_msgs/msg/")]
)
def test_a_definition_of_ros_2_is_read_without_comments_and_constants(text: str) -> None:
    message = parse_definition("sensor_msgs/msg/Image", text)
    header, *rest = message.fields
    assert isinstance(header.item, Message)
    assert (header.name, header.item.name) == ("header", "std_msgs/msg/Header")
    assert rest == [
        Field("height", Number("uint32"), None),
        Field("encoding", Text(False, 0), None),
        Field("is_bigendian", Number("uint8"), None),
        Field("gain", Number("float32"), None, 1.5),
        Field("data", Number("uint8"), Many(0, fixed=False)),
    ]


def test_types_of_the_same_package_bounds_and_old_names_are_read() -> None:
    text = f"Part[<=3] parts\nwstring<=5[2] names\nbyte a\nchar b\n{SEPARATOR}\nMSG: p/Part\nbool c"
    parts, names, a, b = parse_definition("p/msg/All", text).fields
    assert parts.many == Many(3, fixed=False)
    assert (names.item, names.many) == (Text(True, 5), Many(2, fixed=True))
    assert a.item == b.item == Number("uint8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("geometry_msgs/Point p", "definition of geometry_msgs/Point is missing"),
        ("Name again", "contains itself"),
        ("uint8", "is not a field"),
        ("uint8[0] x", "has no items"),
        ("---", "is not a field"),
        ("int8 x\nint16 x", "two fields of one name"),
        (
            "".join(f"A0 x{n}\n" for n in range(10))
            + "".join(
                f"{SEPARATOR}\nMSG: pkg/A{level}\n"
                + "".join(f"A{level + 1} x{n}\n" for n in range(10))
                for level in range(20)
            )
            + f"{SEPARATOR}\nMSG: pkg/A20\nint8 x\n",
            "more than 10000 fields",
        ),
    ],
)
def test_what_is_no_definition_is_refused(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        parse_definition("pkg/msg/Name", text)


def test_the_stamp_of_a_header_is_read_where_a_message_has_one() -> None:
    message = parse_definition("sensor_msgs/msg/Image", IMAGE)
    read = stamp_reader(message)
    stamp = {"sec": 7, "nanosec": 5}
    array = pa.array([{"header": {"stamp": stamp}}])
    assert read is not None
    assert read(encoder(message)(array)) == 7_000_000_005
    assert stamp_reader(parse_definition("p/msg/Plain", "int32 sec\nuint32 nanosec")) is None


@pytest.mark.parametrize(
    ("row", "stamp"),
    [
        ({"height": 1}, 9_000_000_001),
        ({"header": {"frame_id": "map"}}, 9_000_000_001),
        ({"header": {"stamp": {"sec": 7}}}, 7_000_000_000),
    ],
)
def test_a_header_without_a_stamp_gets_that_of_the_metadata(
    row: dict[str, object], stamp: int
) -> None:
    message = parse_definition("sensor_msgs/msg/Image", IMAGE)
    array = pa.array([row])
    read = stamp_reader(message)
    assert read is not None
    cdr = encoder(message)(array)
    stamped = with_stamp(cdr, array.type, 9_000_000_001)
    assert read(stamped) == stamp
    assert stamped[12:] == cdr[12:]


@pytest.mark.parametrize("stamp", ["now", 1.5, 1 << 62, None])
def test_a_stamp_that_is_none_is_refused(stamp: object) -> None:
    with pytest.raises(ConversionError, match=r"the stamp .* does not fit"):
        with_stamp(b"\0\1\0\0" + bytes(8), pa.struct([]), stamp)
