"""Compare an Arrow array with the shape of its declared type: fields, lists, and nulls.

The size of offsets is not part of a type: text is `string` or `large_string`, a list is any kind of
list, bytes are any kind of binary. A whole message of bytes may also be UInt8, because
`send_output(id, b"…")` sends that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from dorad.shm.arrow import as_array

_TEXT = ("string", "large_string", "string_view")
_BINARY = ("binary", "large_binary", "binary_view", "fixed_size_binary")
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
_NAMES: dict[str, tuple[str, ...]] = {
    "Null": ("na",),
    "Boolean": ("bool",),
    "Int8": ("int8",),
    "Int16": ("int16",),
    "Int32": ("int32",),
    "Int64": ("int64",),
    "UInt8": ("uint8",),
    "UInt16": ("uint16",),
    "UInt32": ("uint32",),
    "UInt64": ("uint64",),
    "Float16": ("half_float",),
    "Float32": ("float",),
    "Float64": ("double",),
    "Utf8": _TEXT,
    "LargeUtf8": _TEXT,
    "Binary": _BINARY,
    "LargeBinary": _BINARY,
    "Date32": ("date32",),
    "Date64": ("date64",),
    "Timestamp": ("timestamp",),
    "Duration": ("duration",),
}


def _ids(names: tuple[str, ...]) -> frozenset[int]:
    """Return the ids of Arrow types that this version of pyarrow has."""
    numbers = (getattr(pa.lib, f"Type_{name.upper()}", None) for name in names)
    return frozenset(number for number in numbers if number is not None)


_IDS = {name: _ids(names) for name, names in _NAMES.items()}
_LIST_IDS = _ids(_LISTS)
_BYTES_IDS = _ids(_BINARY)
_DISPLAY_NAMES = {
    next(iter(_ids((names[0],)))): name
    for name, names in _NAMES.items()
    if name not in ("LargeUtf8", "LargeBinary")
} | {pa.lib.Type_LARGE_STRING: "LargeUtf8", pa.lib.Type_LARGE_BINARY: "LargeBinary"}


def arrow_name(kind: Any) -> str:
    """Return the name of an Arrow type in type definitions, or else in pyarrow."""
    if kind.id in _LIST_IDS:
        return f"List<{arrow_name(kind.value_type)}>"
    return "Struct" if kind.id == pa.lib.Type_STRUCT else _DISPLAY_NAMES.get(kind.id, str(kind))


class Mismatch(NamedTuple):
    """The first difference; `field` is empty for the whole message."""

    field: str
    expected: str
    actual: str


class Shapes:
    """The accepted shapes; a mismatch is reported against the first one."""

    def __init__(self, shapes: list[Any]) -> None:
        self._shapes = shapes
        self._strict = any(map(_forbids_nulls, shapes))
        self._last: tuple[Any, Mismatch | None] = (None, None)
        """The last checked Arrow type and its result, as one tuple because of threads."""

    def mismatch(self, data: Any) -> Mismatch | None:
        """Return the mismatch of sent or received data, or None."""
        array = None
        if isinstance(data, pa.Array):
            array, kind = data, data.type
        elif isinstance(data, bytes):
            kind = pa.uint8()
        elif hasattr(data, "__array_interface__"):
            try:
                kind = pa.from_numpy_dtype(data.dtype)
            except pa.ArrowNotImplementedError:
                return None  # cannot be sent: the sender reports it better
        else:
            array = as_array(data)
            kind = array.type
        seen, wrong = self._last
        if self._strict or seen is None or kind != seen:
            wrong = self._compare(kind, array)
            self._last = (kind, wrong)
        return wrong

    def _compare(self, kind: Any, array: Any) -> Mismatch | None:
        first: Mismatch | None = None
        for shape in self._shapes:
            if kind.id == pa.lib.Type_UINT8 and _IDS.get(_name(shape)) == _BYTES_IDS:
                return None
            wrong = _compare(shape, kind, array, "")
            if wrong is None:
                return None
            first = first or wrong
        if first is not None and not first.field and len(self._shapes) > 1:
            return first._replace(expected=" or ".join(map(_display_name, self._shapes)))
        return first


def _compare(shape: Any, kind: Any, array: Any, path: str) -> Mismatch | None:
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        array = None if array is None else array.storage
    if isinstance(shape, str):
        return None if kind.id in _IDS[shape] else Mismatch(path, shape, arrow_name(kind))
    if "list" in shape:
        if kind.id not in _LIST_IDS:
            return Mismatch(path, _display_name(shape), arrow_name(kind))
        items = None if array is None else array.flatten()
        return _compare(shape["list"], kind.value_type, items, f"{path}[]")
    if kind.id != pa.lib.Type_STRUCT:
        return Mismatch(path, "Struct", arrow_name(kind))
    return None if shape["fields"] is None else _compare_fields(shape["fields"], kind, array, path)


def _compare_fields(fields: list[Any], kind: Any, array: Any, path: str) -> Mismatch | None:
    for name, shape, nullable in fields:
        inner = f"{path}.{name}" if path else name
        at = kind.get_field_index(name)
        if at < 0:
            twice = bool(kind.get_all_field_indices(name))
            return Mismatch(
                inner, _display_name(shape), "several of that name" if twice else "no field"
            )
        part = None if array is None else array.field(at)
        wrong = _compare(shape, kind.field(at).type, part, inner)
        if wrong is not None:
            return wrong
        if not nullable and part is not None and part.null_count:
            return Mismatch(inner, "no nulls", "nulls")
    if kind.num_fields > len(fields):
        known = {field[0] for field in fields}
        extra = next(field for field in kind if field.name not in known)
        inner = f"{path}.{extra.name}" if path else extra.name
        return Mismatch(inner, "no field", arrow_name(extra.type))
    return None


def _forbids_nulls(shape: Any) -> bool:
    if isinstance(shape, str):
        return False
    if "list" in shape:
        return _forbids_nulls(shape["list"])
    fields = shape["fields"] or ()
    return any(not nullable or _forbids_nulls(inner) for _, inner, nullable in fields)


def _name(shape: Any) -> str:
    return shape if isinstance(shape, str) else ""


def _display_name(shape: Any) -> str:
    if isinstance(shape, str):
        return shape
    return f"List<{_display_name(shape['list'])}>" if "list" in shape else "Struct"
