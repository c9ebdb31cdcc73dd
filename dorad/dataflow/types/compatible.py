"""Decide whether data of one type is accepted where another is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.types.model import Named, Shape, Struct
from dorad.dataflow.types.standard import BYTES, CONVERSIONS
from dorad.dataflow.types.urn import Urn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.types.library import Library

MAX_HOPS = 3

Rule = tuple[Urn, Urn]
STANDARD_RULES: tuple[Rule, ...] = tuple((Urn(a), Urn(b)) for a, b in CONVERSIONS)


def same(source: Urn, target: Urn) -> bool:
    """Return True if the types are equal; only parameters that both name are compared."""
    return source.base == target.base and all(
        target.params.get(key, value) == value for key, value in source.params.items()
    )


def fits(source: Urn, target: Urn, rules: Sequence[Rule] = ()) -> bool:
    """Return True if `source` is `target`, converts to it in at most three steps, or if
    `target` is bytes.
    """
    if target.base == BYTES or same(source, target):
        return True
    reached = [source]
    known = [*STANDARD_RULES, *rules]
    for _ in range(MAX_HOPS):
        reached = [into for urn in reached for start, into in known if same(urn, start)]
        if any(same(urn, target) for urn in reached):
            return True
    return False


def detail(library: Library, source: Shape, target: Shape) -> str | None:
    """Return the first field in which `source` differs from `target`, in words, or None."""
    source, target = library.resolve(source), library.resolve(target)
    if not isinstance(source, Struct) or not isinstance(target, Struct):
        return None
    if source.fields is None or target.fields is None:
        return None
    given = {known.name: known for known in source.fields}
    for wanted in target.fields:
        known = given.get(wanted.name)
        if known is None:
            return f'it has no field "{wanted.name}"'
        if known.shape == wanted.shape:
            continue
        inner = None
        if isinstance(known.shape, Named) and isinstance(wanted.shape, Named):
            inner = detail(library, known.shape, wanted.shape)
        return (
            f'in field "{wanted.name}" {inner}'
            if inner
            else f'field "{wanted.name}" is {known.shape}, not {wanted.shape}'
        )
    extra = [name for name in given if name not in {known.name for known in target.fields}]
    return f'it has also a field "{extra[0]}"' if extra else None
