"""Arrow values as protobuf messages, which viewers show: a field for each member of a struct.

An array is the repeated field 1, `data`; a list in a list is a message with the field `items`.
Text, bytes, numbers and truth values are themselves, times `google.protobuf.Timestamp` or
`Duration`, decimals the nearest double, and a few rare types JSON. A null is an absent field,
in a list of floats NaN, in a list of structs an empty one; in any other list the values are
messages then, with the field `value`. Only viewers read this: the exact array lies beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from dorad.control.arrayvalues import python_size
from dorad.record.encoding import columns, protobuf
from dorad.record.encoding.protobuf import Field, Message, delimited, prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DATA_FIELD, NOTE_FIELD = 1, 2

MAX_FIELDS = 512
"""Members of all structs of a type; more are shown as JSON."""
MAX_DEPTH = 12


class _Part(NamedTuple):
    """How the values of one type are shown in a field of a message."""

    field: Field
    encode: columns.Encoder
    has_nulls: bool = True
    """Whether a null has no bytes of its own."""


class Shape(NamedTuple):
    """How arrays of one type are shown."""

    name: str
    """The full name of the message."""
    schema: bytes
    """Its `FileDescriptorSet`."""
    encode: Callable[[pa.Array], bytes]
    """Returns the field `data`. Raises ValueError."""


def shown(array: pa.Array, shape_of: Callable[[bool], Shape]) -> tuple[Shape, bytes]:
    """Return an array as a message, and its shape: `shape_of(True)` if it has nulls in lists.

    Of a large one the message has the first values only, and a note that says so.
    """
    part = _shortened(array, columns.MAX_SHOWN)
    note = b"" if part is array else delimited(NOTE_FIELD, b"only the first values are shown")
    try:
        shape = shape_of(False)
        return shape, note + shape.encode(part)
    except columns.NullsError:
        shape = shape_of(True)
        return shape, note + shape.encode(part)


def shape_of(kind: pa.DataType, arrow: bytes, *, nulls: bool) -> Shape:
    """Return how arrays of a type are shown; with `nulls` those that have nulls in lists.

    `arrow` identifies the type, such as its serialized schema.
    """
    digest = hashlib.sha256(arrow + bytes([nulls])).hexdigest()[:8]
    word = re.match(r"[a-z]+", str(kind).lower())
    # Viewers take messages of one name for the same, in all topics.
    name = f"{word[0].capitalize() if word else 'Values'}_{digest}"
    builder = _Builder(f".dora.{name}", nulls=nulls)
    data = builder.repeated("data", DATA_FIELD, kind, "Row", 0)
    note = Field("note", NOTE_FIELD, protobuf.STRING, optional=True)
    meta = Field("metadata", protobuf.METADATA_FIELD, protobuf.STRING)
    message = Message(name, (data.field, note, meta), tuple(builder.messages))

    def encode(array: pa.Array) -> bytes:
        # A list of one row: all values.
        return columns.between(data.encode(_as_list(array)), 0, 1)

    return Shape(f"dora.{name}", protobuf.schema_of("dora", message, builder.needs), encode)


def _shortened(array: pa.Array, limit: int) -> pa.Array:
    """Return an array, or its first values if all take more than `limit` bytes.

    Of one value that is too large, it has the first items of its lists.
    """
    part = array
    while len(part) > 1 and python_size(part) > limit:
        part = part.slice(0, len(part) // 2)
    if len(part) != 1 or python_size(part) <= limit:
        return part
    part = columns.values_of(part)
    kind = part.type
    if pa.types.is_struct(kind) and kind.num_fields:
        members = [_shortened(member, limit // kind.num_fields) for member in part.flatten()]
        return pa.StructArray.from_arrays(members, [field.name for field in kind])
    if _is_list(kind):
        return _as_list(_shortened(columns.items_of(part)[1], limit))
    if _is_text(kind) or _is_bytes(kind):
        return pa.array([part[0].as_py()[:limit]])
    return part


def _as_list(array: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


class _Builder:
    """Makes the messages for the structs of one type, and what encodes them."""

    def __init__(self, parent: str, *, nulls: bool) -> None:
        self.messages: list[Message] = []
        self.needs: set[str] = set()
        """Well-known types that are used."""
        self._parent = parent
        self._nulls = nulls
        self._fields = 0

    def repeated(self, name: str, at: int, kind: pa.DataType, title: str, depth: int) -> _Part:
        """Return the field for lists of values of a type; `title` names their message."""
        kind = _plain(kind)
        if kind == pa.uint8() and not self._nulls:
            return _Part(Field(name, at, protobuf.BYTES), columns.octets(at))
        number_kind = columns.number_kind(kind)
        floats = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if number_kind is not None and (floats or not self._nulls):
            return _Part(Field(name, at, number_kind.kind, repeated=True), columns.packed(at, kind))
        if self._nulls and not _is_message(kind):
            inner = self.single("value", 1, kind, title, depth + 1)
            part = self._message(name, at, title, (inner,), columns.value_alone)
        else:
            part = self.single(name, at, kind, title, depth)
        null = b"" if not part.has_nulls else None
        if part.field.type_name:
            null = prefix(at, 0)
        field = part.field._replace(repeated=True, optional=False)
        return _Part(field, columns.joined(part.encode, null))

    def single(self, name: str, at: int, kind: pa.DataType, title: str, depth: int) -> _Part:
        """Return the field for one value of a type."""
        kind = _plain(kind)
        t = pa.types
        number_kind = columns.number_kind(kind)
        if number_kind is not None:
            return _Part(
                Field(name, at, number_kind.kind, optional=True), columns.scalars(at, kind)
            )
        if _is_text(kind):
            return _Part(
                Field(name, at, protobuf.STRING, optional=True),
                columns.delimited_by(at, columns.texts),
            )
        if _is_bytes(kind):
            return _Part(
                Field(name, at, protobuf.BYTES, optional=True),
                columns.delimited_by(at, columns.binaries),
            )
        if t.is_timestamp(kind) or t.is_date(kind):
            return self._time(name, at, "Timestamp")
        if t.is_duration(kind) or t.is_time(kind):
            return self._time(name, at, "Duration")
        if depth < MAX_DEPTH:
            if t.is_struct(kind) and 0 < kind.num_fields <= MAX_FIELDS - self._fields:
                return self._struct(name, at, kind, title, depth)
            if _is_list(kind):
                items = self.repeated("items", 1, _item_type(kind), f"{title}Item", depth + 1)
                return self._message(name, at, title, (items,), columns.value_alone)
        field = Field(name, at, protobuf.STRING, optional=True)
        return _Part(field, columns.delimited_by(at, columns.as_json, nulls=False), has_nulls=False)

    def _struct(self, name: str, at: int, kind: pa.DataType, title: str, depth: int) -> _Part:
        self._fields += kind.num_fields
        members = []
        names = _field_names([field.name for field in kind])
        for place, (field, member) in enumerate(zip(kind, names, strict=True), start=1):
            inner = f"{title}_{member}"
            value = _plain(field.type)
            if _is_list(value):
                part = self.repeated(member, place, _item_type(value), inner, depth + 1)
                members.append(part._replace(encode=columns.lists(part.encode)))
            else:
                members.append(self.single(member, place, value, inner, depth + 1))
        return self._message(name, at, title, members, pa.StructArray.flatten)

    def _message(
        self,
        name: str,
        at: int,
        title: str,
        members: Sequence[_Part],
        values: Callable[[pa.Array], Sequence[pa.Array]],
    ) -> _Part:
        if any(message.name == title for message in self.messages):
            title = f"{title}_{len(self.messages)}"
        self.messages.append(Message(title, tuple(part.field for part in members)))
        field = Field(name, at, protobuf.MESSAGE, type_name=f"{self._parent}.{title}")
        return _Part(field, columns.messages(at, [part.encode for part in members], values))

    def _time(self, name: str, at: int, kind: str) -> _Part:
        self.needs.add(kind)
        field = Field(name, at, protobuf.MESSAGE, type_name=f".google.protobuf.{kind}")
        return _Part(field, columns.delimited_by(at, columns.times))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that the values of an extension type or a dictionary have."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    lists = (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_map)
    return any(is_kind(kind) for is_kind in lists)


def _item_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_map(kind):
        return pa.struct([("key", kind.key_type), ("value", kind.item_type)])
    return kind.value_type


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_binary_view(kind)
        or t.is_fixed_size_binary(kind)
    )


def _is_message(kind: pa.DataType) -> bool:
    t = pa.types
    temporal = t.is_temporal(kind) and not t.is_interval(kind)
    return bool(temporal or t.is_struct(kind) or _is_list(kind))


_NAME = re.compile(r"[^A-Za-z0-9_]")


def _field_names(names: Sequence[str]) -> list[str]:
    """Return names that protobuf allows: letters, digits and `_`, and none twice in any case."""
    made: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = _NAME.sub("_", name)[:100] or "_"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        numbers = itertools.count(2)
        chosen = plain
        while (key := chosen.replace("_", "").lower()) in taken:
            chosen = f"{plain}_{next(numbers)}"
        taken.add(key)
        made.append(chosen)
    return made
