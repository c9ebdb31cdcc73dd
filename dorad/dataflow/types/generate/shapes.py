"""Translate shapes to Python code: Arrow types, annotations, expressions that read values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.types.model import ListOf, Named, Scalar, Shape, Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.types.library import Library


class _Kind(NamedTuple):
    arrow: str
    builds: str
    """The annotation of a value that a builder takes."""
    reads: str
    """The annotation of a value that a reader returns."""
    reader: str
    """The function that reads it from an array and an index."""
    dtype: str | None = None
    """The numpy type, if many values are read at once."""


def _integer(arrow: str) -> _Kind:
    return _Kind(arrow, "int", "int", "_int", f"np.{arrow}")


_KINDS: Mapping[str, _Kind] = {
    "Null": _Kind("null", "None", "Any", "_any"),
    "Boolean": _Kind("bool_", "bool", "bool", "_bool", "np.bool_"),
    **{name: _integer(name.lower()) for name in ("Int8", "Int16", "Int32", "Int64")},
    **{name: _integer(name.lower()) for name in ("UInt8", "UInt16", "UInt32", "UInt64")},
    "Float16": _Kind("float16", "float", "float", "_float", "np.float16"),
    "Float32": _Kind("float32", "float", "float", "_float", "np.float32"),
    "Float64": _Kind("float64", "float", "float", "_float", "np.float64"),
    "Utf8": _Kind("string", "str", "str", "_text"),
    "LargeUtf8": _Kind("large_string", "str", "str", "_text"),
    "Binary": _Kind("binary", "bytes", "NDArray[np.uint8]", "_bytes"),
    "LargeBinary": _Kind("large_binary", "_BytesLike", "NDArray[np.uint8]", "_bytes"),
    "Date32": _Kind("date32", "np.datetime64", "np.datetime64", "_moment"),
    "Date64": _Kind("date64", "np.datetime64", "np.datetime64", "_moment"),
    "Timestamp": _Kind('timestamp("ns")', "np.datetime64", "np.datetime64", "_moment"),
    "Duration": _Kind('duration("ns")', "np.timedelta64", "np.timedelta64", "_span"),
}


class ShapeTranslator:
    """A translator of shapes to code, given the names of the classes."""

    def __init__(self, library: Library, classes: Mapping[str, str]) -> None:
        self._library = library
        self._classes = classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes."""
        return tuple(self._classes.values())

    def _plain(self, shape: Shape) -> Shape | str:
        """Return the shape, or the name of the class that reads it."""
        while isinstance(shape, Named):
            definition = self._library.get(shape.urn)
            assert definition is not None  # the types of a library refer only to each other
            if isinstance(definition.shape, Struct) and definition.shape.fields is not None:
                return self._classes[shape.urn]
            shape = definition.shape
        return shape

    def kind(self, shape: Shape) -> _Kind | None:
        """Return the kind of a scalar; None for other shapes."""
        plain = self._plain(shape)
        return _KINDS[plain.name] if isinstance(plain, Scalar) else None

    def arrow(self, shape: Shape) -> str:
        """Return the Arrow type as an expression."""
        plain = self._plain(shape)
        if isinstance(plain, str):
            return f"{plain}.TYPE"
        if isinstance(plain, ListOf):
            item, depth = self._innermost(plain)
            arrow = self.arrow(item)
            return f"pa.large_list({arrow})" if depth == 1 else f"_lists({arrow}, {depth})"
        if isinstance(plain, Scalar):
            name = _KINDS[plain.name].arrow
            return f"pa.{name}" if name.endswith(")") else f"pa.{name}()"
        return "pa.struct([])"

    def builds(self, shape: Shape) -> str:
        """Return the annotation of a value that a builder takes."""
        plain = self._plain(shape)
        if isinstance(plain, str):
            return f"{plain} | pa.StructArray"
        if isinstance(plain, ListOf):
            kind = self.kind(plain.item)
            numbers = kind is not None and kind.dtype not in (None, "np.bool_")
            return "ArrayLike" if numbers else f"Iterable[{self.builds(plain.item)}]"
        return _KINDS[plain.name].builds if isinstance(plain, Scalar) else "dict[str, Any]"

    def reads(self, shape: Shape) -> str:
        """Return the annotation of a value that a reader returns."""
        plain = self._plain(shape)
        if isinstance(plain, str):
            return plain
        if isinstance(plain, ListOf):
            kind = self.kind(plain.item)
            if kind is not None and kind.dtype is not None:
                return f"NDArray[{kind.dtype}]"
            return f"list[{self.reads(plain.item)}]"
        return _KINDS[plain.name].reads if isinstance(plain, Scalar) else "Any"

    def read(self, shape: Shape, location: str) -> str:
        """Return the expression that reads a value; `location` is an array and an index."""
        plain = self._plain(shape)
        if isinstance(plain, str):
            return f"{plain}({location})"
        if isinstance(plain, ListOf):
            return self._read_list(plain, location)
        return f"{self._reader(plain)}({location})"

    def _innermost(self, shape: ListOf) -> tuple[Shape, int]:
        """Return the innermost item of nested lists, and the depth of nesting."""
        depth = 1
        item = shape.item
        while isinstance(plain := self._plain(item), ListOf):
            depth += 1
            item = plain.item
        return item, depth

    def _read_list(self, shape: ListOf, location: str) -> str:
        inner, depth = self._innermost(shape)
        item = self._plain(inner)
        kind = _KINDS[item.name] if isinstance(item, Scalar) else None
        reader = item if isinstance(item, str) else self._reader(item)
        if kind is not None and kind.dtype is not None:
            if depth == 1:
                return f"_vector({location}, {kind.dtype})"
            reader, depth = f"_vector_of({kind.dtype})", depth - 1
        if depth == 1:
            return f"_items({location}, {reader})"
        return f"_nested({location}, {reader}, {depth})"

    @staticmethod
    def _reader(shape: Shape) -> str:
        """Return the function that reads a scalar or a struct."""
        return _KINDS[shape.name].reader if isinstance(shape, Scalar) else "_any"
