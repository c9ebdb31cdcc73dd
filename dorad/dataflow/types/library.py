"""All types that a dataflow knows, found by URN, short name or similar spelling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dorad.dataflow.nearest import near
from dorad.dataflow.types.model import ListOf, Named, Scalar, Shape, Struct, TypeDef
from dorad.dataflow.types.standard import standard_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Library:
    """The standard types and those of the user."""

    def __init__(self, own: Iterable[TypeDef] = ()) -> None:
        self.own = tuple(own)
        self._all = {found.urn: found for found in (*standard_types(), *self.own)}

    def __iter__(self) -> Iterator[TypeDef]:
        return iter(self._all.values())

    def get(self, base: str) -> TypeDef | None:
        """Return the type with this URN (without parameters), or None."""
        return self._all.get(base)

    def short(self, name: str) -> tuple[str, ...]:
        """Return the URNs that end with a name."""
        return tuple(found.urn for found in self if found.name == name)

    def hint(self, base: str) -> str | None:
        """Return a hint for an unknown URN."""
        return hint(base, self._all)

    def resolve(self, shape: Shape) -> Shape:
        """Return the shape of a named type, other shapes as they are.

        Raises KeyError for an unknown type.
        """
        while isinstance(shape, Named):
            shape = self._all[shape.urn].shape
        return shape

    def plain(self, shape: Shape) -> object:
        """Return the shape as JSON values for the check in a node, with named types expanded.

        A scalar is its name, a list `{"list": item}`, a struct `{"fields": [[name, shape,
        nullable], …]}`, with null for unknown fields.
        """
        shape = self.resolve(shape)
        if isinstance(shape, Scalar):
            return shape.name
        if isinstance(shape, ListOf):
            return {"list": self.plain(shape.item)}
        if not isinstance(shape, Struct) or shape.fields is None:
            return {"fields": None}
        return {"fields": [[f.name, self.plain(f.shape), f.nullable] for f in shape.fields]}


def hint(base: str, urns: Iterable[str]) -> str | None:
    """Return a hint: a URN at most two letters away, or one with that short name."""
    known = list(urns)
    names = [urn for urn in known if urn.rpartition("/")[2].lower() == base.lower()]
    found = near(base, known) or (names[0] if "/" not in base and names else None)
    if found is None and "/" not in base:
        short = near(base, [urn.rpartition("/")[2] for urn in known])
        found = next((urn for urn in known if urn.endswith(f"/{short}")), None)
    if found is not None:
        return f"did you mean `{found}`?"
    if re.match(r"std/", base):
        return "`dora types list` shows all"
    return None
