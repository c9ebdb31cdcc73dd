"""All types that a dataflow knows, found by URN, short name or similar spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dorad.dataflow.nearest import near
from dorad.dataflow.types.model import ListOf, Named, Scalar, Shape, Struct, TypeDef
from dorad.dataflow.types.ports import ROS2
from dorad.dataflow.types.standard import standard_types
from dorad.dataflow.types.urn import is_base


class Library:
    """The standard types and those of the user."""

    def __init__(self, own: Iterable[TypeDef] = ()) -> None:
        self.own = tuple(own)
        self._all = {definition.urn: definition for definition in (*standard_types(), *self.own)}

    def __iter__(self) -> Iterator[TypeDef]:
        return iter(self._all.values())

    def get(self, base: str) -> TypeDef | None:
        """Return the type with this URN (without parameters), or None."""
        return self._all.get(base)

    def short(self, name: str) -> tuple[str, ...]:
        """Return the URNs that end with a name."""
        return tuple(definition.urn for definition in self if definition.name == name)

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
    """Return a hint: a URN at most two letters away, one with that short name, or a place."""
    known = list(urns)
    names = [urn for urn in known if urn.rpartition("/")[2].lower() == base.lower()]
    nearest = near(base, known) or (names[0] if "/" not in base and names else None)
    if nearest is None and "/" not in base:
        short = near(base, [urn.rpartition("/")[2] for urn in known])
        nearest = next((urn for urn in known if urn.endswith(f"/{short}")), None)
    if nearest is not None:
        return f"did you mean `{nearest}`?"
    if base.startswith(ROS2):
        return f"`dora types show {base}` says what is missing"
    if re.match(r"std/", base):
        return "`dora types list` shows all"
    if "/" in base and is_base(base):
        return f"`types/{base.rpartition('/')[0]}.yml` beside the dataflow would define it"
    return None
