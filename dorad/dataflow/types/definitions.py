"""Convert definitions of types from YAML mappings to `TypeDef`s and back."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.types.library import hint
from dorad.dataflow.types.model import (
    SCALARS,
    STRUCT,
    Field,
    ListOf,
    MetadataKey,
    Named,
    Param,
    Scalar,
    Shape,
    Struct,
    TypeDef,
)
from dorad.dataflow.types.standard import PREFIX, standard_types
from dorad.dataflow.types.urn import is_base

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value

_MAX_DEPTH = 8
_BARE_LISTS = ("List", "LargeList", "FixedSizeList")
_LIST_HINT = "write the type of its items: `List<Float32>`"


def parse_shape(text: str, urns: Collection[str], depth: int = 0) -> Shape:
    """Return the shape that a text names; `urns` are all known types. Raises TextError."""
    text = text.strip()
    for opening in ("List<", "LargeList<"):
        if text.startswith(opening):
            if not text.endswith(">") or depth == _MAX_DEPTH:
                raise TextError(f"`{text}` is not a valid list", _LIST_HINT)
            return ListOf(parse_shape(text[len(opening) : -1], urns, depth + 1))
    if text in SCALARS:
        return Scalar(text)
    if text == STRUCT:
        return Struct()
    if text in urns:
        return Named(text)
    if text in _BARE_LISTS:
        raise TextError(f"`{text}` does not name the type of its items", _LIST_HINT)
    if "/" not in text:
        meant = [urn for urn in urns if urn.rpartition("/")[2] == text]
        if len(meant) == 1:
            return Named(meant[0])
        if meant:
            raise TextError(f"there are several types `{text}`", f"write {' or '.join(meant)}")
    raise TextError(f"there is no type `{text}`", did_you_mean(text, SCALARS) or hint(text, urns))


def parse_arrow(text: str, urns: Collection[str]) -> Shape:
    """Return the shape of the key `arrow` of a type. Raises TextError."""
    shape = parse_shape(text, urns)
    if isinstance(shape, Named):
        raise TextError(
            f"`{text}` is not an Arrow type", "write `Struct`; other types go into fields"
        )
    return shape


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHAT = "a mapping with `arrow`"
MAX_TYPE_DEPTH = 32
"""Maximum depth of types in types."""
MAX_FIELDS = 10_000
"""Maximum for one type with all types in it expanded."""


class Draft(NamedTuple):
    """A definition that is not parsed yet, because it may name others."""

    urn: str
    value: Value
    problems: Problems


def drafts(
    types: Mapping[str, Value], prefix: str, problems: Problems, known: Iterable[Draft] = ()
) -> Iterator[Draft]:
    """Return the definitions in a mapping, named `prefix` + name; report invalid names."""
    taken = {draft.urn for draft in known}
    for name, value in types.items():
        urn = f"{prefix}{name}"
        if urn.startswith(PREFIX):
            problems.error_in_name(value, "`std/` is for the standard library", "choose a prefix")
        elif not _NAME.fullmatch(urn.rpartition("/")[2]):
            hint = "use letters, digits and `_`, not starting with a digit"
            problems.error_in_name(value, f"`{name}` is not a valid type name", hint)
        elif "/" not in urn:
            problems.error_in_name(value, f"`{name}` has no prefix", f"write `my/v1/{name}`")
        elif not is_base(urn):
            hint = "use letters, digits, `_`, `.` and `-` between slashes, as in `my/v1/Name`"
            problems.error_in_name(value, f"`{urn}` is not a valid type name", hint)
        elif urn in taken:
            hint = "remove one, or give it another name"
            problems.error_in_name(value, f"the type `{urn}` is defined twice", hint)
        else:
            yield Draft(urn, value, problems)


def read_drafts(definition: Sequence[Draft]) -> tuple[TypeDef, ...]:
    """Return the types; report mistakes to the problems of each draft."""
    urns = [standard.urn for standard in standard_types()] + [draft.urn for draft in definition]
    references: dict[tuple[str, str], Value] = {}
    types = [_read(draft, urns, references) for draft in definition]
    by_urn = {definition.urn: definition for definition in types}
    reported: set[str] = set()
    for draft in definition:
        cycle = _cycle(by_urn, draft.urn)
        if cycle and not reported.intersection(cycle):
            reported.update(cycle)
            value = references.get((draft.urn, cycle[1])) or draft.value
            draft.problems.error(
                value, f"contains itself: {' -> '.join(cycle)}", "a message would be infinite"
            )
    if not reported:
        _check_size(definition, by_urn)
    return tuple(types)


def _check_size(all_drafts: Sequence[Draft], types: Mapping[str, TypeDef]) -> None:
    """Report types that are too deep or too large with all types in them expanded."""
    known = {**{each.urn: each for each in standard_types()}, **types}
    parts = {urn: [each for each in map(_named, _shapes(known[urn])) if each] for urn in known}
    by_urn = {draft.urn: draft for draft in all_drafts}
    depth: dict[str, int] = {}
    size: dict[str, int] = {}
    for urn in TopologicalSorter(parts).static_order():
        depth[urn] = 1 + max((depth[part] for part in parts[urn]), default=0)
        size[urn] = len(_shapes(known[urn])) + sum(size[part] for part in parts[urn])
        if urn not in by_urn or not (depth[urn] > MAX_TYPE_DEPTH or size[urn] > MAX_FIELDS):
            continue
        draft = by_urn[urn]
        draft.problems.error_in_name(
            draft.value,
            f"is more than {MAX_TYPE_DEPTH} types deep"
            if depth[urn] > MAX_TYPE_DEPTH
            else f"has more than {MAX_FIELDS} fields, including those of its parts",
        )
        depth[urn], size[urn] = 1, 1  # types that contain it are not reported again


def _shapes(definition: TypeDef) -> list[Shape]:
    return [field.shape for field in definition.fields] or [definition.shape]


def _read(draft: Draft, urns: Sequence[str], references: dict[tuple[str, str], Value]) -> TypeDef:
    body = Fields(draft.value, draft.problems, _WHAT)
    body.required_text("arrow", "such as `Struct`, `Float32` or `List<Utf8>`")
    shape = body.checked("arrow", lambda text: parse_arrow(text, urns), None) or Struct()
    if isinstance(shape, ListOf) and (inner := _named(shape)) is not None:
        references[draft.urn, inner] = body.name_of("arrow")
    fields = _read_fields(draft, body, urns, references)
    if isinstance(shape, Struct):
        shape = Struct(fields)
    elif fields is not None:
        draft.problems.error_in_name(
            body.name_of("fields"), f"only a struct has fields, not {shape}", "`arrow: Struct`"
        )
    definition = TypeDef(
        draft.urn,
        shape,
        body.text("description"),
        tuple(_read_params(body)),
        tuple(_read_metadata(body)),
    )
    body.finish()
    return definition


def _read_fields(
    draft: Draft, body: Fields, urns: Sequence[str], references: dict[tuple[str, str], Value]
) -> tuple[Field, ...] | None:
    if not body.has("fields"):
        body.ignore("fields")
        return None
    read: dict[str, Field] = {}
    names: dict[str, Value] = {}
    for item in body.items("fields"):
        block = Fields(item, draft.problems, "a mapping with `name` and `type`")
        name = block.required_text("name")
        block.required_text("type", "such as `Float32`, `List<Utf8>` or another type")
        shape = block.checked("type", lambda text: parse_shape(text, urns), None)
        nullable = block.flag("nullable")
        description = block.text("description")
        block.finish()
        if _is_new(block, "name", "field", names) and shape is not None:
            read[name] = Field(name, shape, nullable is not False, description)
            if (inner := _named(shape)) is not None:
                references.setdefault((draft.urn, inner), block.name_of("type"))
    return tuple(read.values())


def _read_params(body: Fields) -> Iterator[Param]:
    names: dict[str, Value] = {}
    for item in body.items("params"):
        block = Fields(item, body.problems, "a mapping with `name`")
        _is_new(block, "name", "parameter", names)
        yield Param(
            block.checked("name", _check_param, "") or block.required_text("name"),
            block.text("default"),
            block.text("description"),
        )
        block.finish()


def _check_param(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise TextError(f"`{text}` is not a valid parameter name")
    return text


def _read_metadata(body: Fields) -> Iterator[MetadataKey]:
    keys: dict[str, Value] = {}
    for item in body.items("metadata"):
        block = Fields(item, body.problems, "a mapping with `key`")
        _is_new(block, "key", "metadata key", keys)
        key = block.required_text("key")
        required = block.flag("required") or False
        yield MetadataKey(key, block.text("type"), required, block.text("description"))
        block.finish()


def _is_new(block: Fields, key: str, what: str, first: dict[str, Value]) -> bool:
    """Return True unless an entry before has this name, which is reported; remember the name."""
    if not block.has(key):
        return True
    value = block.name_of(key)
    if value.text in first:
        where = first[value.text].where()
        hint = "remove one, or give it another name"
        block.problems.error(value, f"another {what} is called `{value.text}`, {where}", hint)
        return False
    first[value.text] = value
    return True


def _named(shape: Shape) -> str | None:
    while isinstance(shape, ListOf):
        shape = shape.item
    return shape.urn if isinstance(shape, Named) else None


def _cycle(types: Mapping[str, TypeDef], start: str) -> list[str]:
    """Return the path from a type back to itself; empty if there is none."""
    stack = [[start]]
    seen: set[str] = set()
    while stack:
        way = stack.pop()
        definition = types.get(way[-1])
        if definition is None:
            continue
        for inner in map(_named, _shapes(definition)):
            if inner == start:
                return [*way, start]
            if inner is not None and inner not in seen:
                seen.add(inner)
                stack.append([*way, inner])
    return []


def plain_definition(definition: TypeDef) -> dict[str, Any]:
    """Return the definition as in YAML, with full URNs; parsing it gives an equal one."""
    shape = definition.shape
    plain: dict[str, Any] = {"arrow": str(shape)}
    if definition.description is not None:
        plain["description"] = definition.description
    if definition.params:
        plain["params"] = [_given(p, "name", "default", "description") for p in definition.params]
    if isinstance(shape, Struct) and shape.fields is not None:
        plain["fields"] = [
            {"name": item.name, "type": str(item.shape)}
            | ({} if item.nullable else {"nullable": False})
            | _given(item, "description")
            for item in shape.fields
        ]
    if definition.metadata:
        plain["metadata"] = [
            _given(key, "key", "type", "required", "description") for key in definition.metadata
        ]
    return plain


def _given(item: Field | Param | MetadataKey, *names: str) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in names}
    return {name: value for name, value in values.items() if value not in (None, False)}
