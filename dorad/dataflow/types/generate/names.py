"""Python names for types and fields: valid, unique and stable."""

from __future__ import annotations

import builtins
import keyword
import re
from typing import TYPE_CHECKING

from dorad.dataflow.types.standard import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.dataflow.types.model import TypeDef

_CLASSES_TAKEN = frozenset(
    (
        *("Any", "ArrayLike", "Callable", "ClassVar", "Iterable", "NDArray", "Reader"),
        *("Self", "TypeVar", *dir(builtins), *keyword.kwlist),
    )
)
_FUNCTIONS_TAKEN = frozenset((*dir(builtins), *keyword.kwlist, "np", "pa"))
_FIELDS_TAKEN = frozenset(
    (
        *(*keyword.kwlist, "URN", "TYPE", "array", "index", "each", "is_null", "np", "pa"),
        # Names that annotations in the same class use, and the decorator of properties.
        *("Any", "ArrayLike", "ClassVar", "Iterable", "NDArray", "property"),
        *("bool", "bytes", "dict", "float", "int", "list", "str"),
    )
)
_NUMBER = re.compile(r"U?Int[0-9]+|Float[0-9]+")


def class_names(types: Iterable[TypeDef]) -> Mapping[str, str]:
    """Return the name of each type's class, by URN.

    A user's type whose name is not unique gets its prefix: `AcmeArmImage`.
    """
    found: dict[str, str] = {}
    known = list(types)
    functions: set[str] = set()
    for definition in sorted(known, key=lambda each: not each.urn.startswith(PREFIX)):
        alike = [each for each in known if _alike(each.name, definition.name)]
        parts = _parts(definition.urn)
        candidates = [_capital(definition.name)]
        if len(alike) > 1 and not definition.urn.startswith(PREFIX):
            candidates = []
        candidates += ["".join(parts[:-2] + parts[-1:]), "".join(parts)]
        candidates += [f"{candidates[-1]}{number}" for number in range(2, len(known) + 2)]
        name = next(
            each
            for each in candidates
            if each not in _CLASSES_TAKEN and functions.isdisjoint(_functions(each))
        )
        found[definition.urn] = name
        functions.update(_functions(name))
    return found


def _functions(name: str) -> tuple[str, str]:
    return function_name(name), f"read_{snake(name)}"


def _alike(one: str, other: str) -> bool:
    return one == other or snake(one) == snake(other)


def _capital(word: str) -> str:
    """Return the word as the start of a class name, never one of a function or helper."""
    plain = word.lstrip("_")
    return plain[:1].upper() + plain[1:] if plain[:1].isalpha() else f"T{plain}"


def _parts(urn: str) -> list[str]:
    return [
        "".join(map(_capital, filter(None, re.split(r"[^A-Za-z0-9]+", part))))
        for part in urn.split("/")
    ]


def function_name(name: str) -> str:
    """Return the name of a class's builder function: `point_cloud` for `PointCloud`."""
    plain = snake(name)
    return f"{plain}_" if plain in _FUNCTIONS_TAKEN else plain


def snake(name: str) -> str:
    """Return the name in lower case, with `_` between its words."""
    if _NUMBER.fullmatch(name):
        return name.lower()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def field_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return the name of each field's property."""
    used = {*_FIELDS_TAKEN, *taken}
    found = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not plain or plain[0].isdigit() or plain[0] == "_":
            plain = f"f_{plain.lstrip('_')}"
        while plain in used:
            plain += "_"
        used.add(plain)
        found.append(plain)
    return found
