"""Values on D-Bus and plain ones: lists for structures and arrays, no variants."""

from __future__ import annotations

from typing import Any

from jeepney.low_level import Array, DictEntry, Struct, Variant, parse_signature


def marshallable(shape: Any, value: Any) -> Any:
    """Return a value of this shape as the library wants it: tuples for structures.

    A variant is a tuple of its signature and its value; arrays of bytes may be `bytes`.
    """
    if isinstance(shape, Struct):
        fields = zip(shape.fields, value, strict=True)
        return tuple(marshallable(field, each) for field, each in fields)
    if isinstance(shape, Variant):
        signature, inner = value
        return (signature, marshallable(parse_signature(list(signature)), inner))
    if isinstance(shape, Array) and not isinstance(value, bytes):
        if isinstance(shape.elt_type, DictEntry) and isinstance(value, dict):
            value = value.items()
        return [marshallable(shape.elt_type, each) for each in value]
    return value


def plain(shape: Any, value: Any) -> Any:
    """Return a value of this shape, as the library has parsed it, without variants and tuples."""
    if isinstance(shape, Variant):
        signature, inner = value
        return plain(parse_signature(list(signature)), inner)
    if isinstance(shape, Struct):
        return [plain(f, each) for f, each in zip(shape.fields, value, strict=True)]
    if isinstance(shape, Array) and isinstance(value, dict):
        key, item = shape.elt_type.fields
        return {plain(key, k): plain(item, v) for k, v in value.items()}
    if isinstance(shape, Array) and isinstance(value, list):
        return [plain(shape.elt_type, each) for each in value]
    return value
