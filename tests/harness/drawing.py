"""Draw whole messages from their types: what any program can send, however absurd."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st
from msgspec import inspect

MAX_ITEMS = 3
"""Elements of a list or an object."""

TEXTS = (
    *("", " ", "/", "a/b", "a", "b", "pick", "arm001", "a/b/c", "*", "-", "0", "a,b", "x@1, y@2"),
    *("\x1b]0;owned\x07", "\x1b[2J", "[red]x[/red]", "[/]", "\\", "$(x)", "a\nb", "a\tb", "\r"),
    *("\u202eabc", "\u200b", "\ufeff", "e\u0301", "\u0301", "\ufe0f", "\u65e5\u672c", "\uff21"),
    *("\U0001f469\u200d\U0001f469", "\U0001f1e9\U0001f1ea", "\ufdfd", "\U0010ffff", "\u2028"),
    *("\x85", "\x00", "\x7f", "\x9b31m", "%s{0}", "9" * 40),
)
"""Texts that begin a control sequence, look like markup, or take another width than they seem."""

INTS = (0, 1, -1, 2, 1000, 1 << 31, 1 << 53, (1 << 63) - 1, -(1 << 63))
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 5e-324, 1e15, 1e300, -1e300),
    *(1.7976931348623157e308, -1.7976931348623157e308),
    *(1_800_000_000.0, 253_402_300_800.0, -62_167_219_200.0, 3e14, 9_999_999.0),
)
"""Numbers that are large, small or no time of a calendar. JSON has no others."""

texts = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=8)
_numbers = st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False)
_huge = st.sampled_from((10**400, -(10**400), 10**4299))
_plain = st.none() | st.booleans() | st.sampled_from(INTS) | _huge | _numbers | texts
anything = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=MAX_ITEMS) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
"""Any value of JSON."""


def messages(kind: type) -> st.SearchStrategy[Any]:
    """Return a strategy for the messages of a type, as they are after they were decoded."""
    return _values(inspect.type_info(kind))


def _values(of: inspect.Type) -> st.SearchStrategy[Any]:
    match of:
        case inspect.StructType() | inspect.DataclassType():
            return _structs(of.cls)
        case inspect.UnionType():
            return st.one_of(map(_values, of.types))
        case inspect.ListType() | inspect.VarTupleType():
            return st.lists(_values(of.item_type), max_size=MAX_ITEMS)
        case inspect.DictType():
            keys, values = _values(of.key_type), _values(of.value_type)
            return st.dictionaries(keys, values, max_size=MAX_ITEMS)
        case inspect.Metadata():
            return _values(of.type)
        case inspect.LiteralType():
            return st.sampled_from(of.values)
        case inspect.EnumType():
            return st.sampled_from(list(of.cls))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.BytesType():
            return st.binary(max_size=8)
        case inspect.AnyType():
            return anything
        case inspect.IntType():
            low = max(-(1 << 63), -(1 << 63) if of.ge is None else of.ge)
            high = (1 << 63) - 1
            high = min(high, high if of.le is None else of.le, high if of.lt is None else of.lt - 1)
            inside = [each for each in INTS if low <= each <= high]
            return st.sampled_from(inside) | st.integers(low, high)
        case inspect.FloatType(ge=None, le=None, lt=None):
            return _numbers
        case inspect.FloatType(lt=None):
            return st.floats(of.ge, of.le)
        case inspect.FloatType():
            return st.floats(of.ge, of.lt, exclude_max=True)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case inspect.StrType():
            low, high = of.min_length or 0, of.max_length or 1 << 20
            return texts.filter(lambda text: low <= len(text) <= high)
    raise NotImplementedError(f"no values of {of}")


@cache
def _structs(kind: type) -> st.SearchStrategy[Any]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType | inspect.DataclassType)

    def made(fields: dict[str, Any]) -> Any:
        try:
            return kind(**fields)
        except ValueError:  # it contradicts itself, and is refused when it is decoded
            reject()

    return st.deferred(
        lambda: st.fixed_dictionaries({each.name: _values(each.type) for each in found.fields})
    ).map(made)


def unbounded_ints(kind: type) -> Iterator[str]:
    """Yield the places in a type of messages that take a whole number of any size."""
    seen: set[type] = set()

    def walk(of: inspect.Type, place: str) -> Iterator[str]:
        match of:
            case inspect.IntType():
                if {of.ge, of.gt} == {None} or {of.le, of.lt} == {None}:
                    yield place
            case inspect.StructType() | inspect.DataclassType() if of.cls not in seen:
                seen.add(of.cls)
                for each in of.fields:
                    yield from walk(each.type, f"{of.cls.__name__}.{each.name}")
            case inspect.UnionType():
                for inner in of.types:
                    yield from walk(inner, place)
            case inspect.ListType() | inspect.VarTupleType():
                yield from walk(of.item_type, place)
            case inspect.DictType():
                yield from walk(of.key_type, place)
                yield from walk(of.value_type, place)
            case inspect.Metadata():
                yield from walk(of.type, place)

    yield from walk(inspect.type_info(kind), kind.__name__)
