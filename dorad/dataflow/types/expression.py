"""Parse the type of a field: `Float32`, `List<Utf8>`, `Pose`, `acme/arm/v1/Joint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.types.library import hint
from dorad.dataflow.types.model import SCALARS, STRUCT, ListOf, Named, Scalar, Shape, Struct

if TYPE_CHECKING:
    from collections.abc import Collection

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
