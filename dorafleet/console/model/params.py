"""New values of parameters, checked before they are sent."""

from collections.abc import Sequence
from typing import Any

import msgspec

from dorad.control.messages import Param
from dorad.control.paramtext import json_text
from dorad.dataflow.errors import TextError
from dorad.dataflow.params import check
from dorad.dataflow.settings import ParamSpec, ParamType
from dorad.phrases import shorten
from dorafleet.console.model.targets import Target

MAX_SHOWN = 40
"""Characters of a value in a question about it."""


def with_value(targets: Sequence[Target], text: str) -> list[Target] | str:
    """Return the targets with the value that was typed as JSON, or what is wrong with it."""
    try:
        # Stricter than `json`, like the daemon: no NaN, no lone surrogates.
        value = msgspec.json.decode(text.encode())
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        return f"this is not JSON: {error}; text needs its own quotes"
    changed = []
    for target in targets:
        param = target.param
        assert param is not None
        try:
            wanted = check(_declared(param), value)
        except TextError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return f"{param.key} {error.message}{hint}"
        before, after = (shorten(json_text(each), MAX_SHOWN) for each in (param.value, wanted))
        title = f"{target.title}: {before} -> {after}"
        given = msgspec.structs.replace(param, value=wanted)
        changed.append(target._replace(param=given, title=title))
    return changed


def _declared(param: Param) -> ParamSpec | None:
    """Return the declaration of a parameter; None if it has none that this program knows."""
    kinds: dict[str, ParamType] = {each.value: each for each in ParamType}
    kind = kinds.get(param.type or "")
    if not param.declared or kind is None:
        return None
    choices: tuple[Any, ...] = tuple(param.choices or ())
    return ParamSpec(kind, param.default, param.minimum, param.maximum, choices, param.description)
