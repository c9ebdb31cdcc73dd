"""Read the `params` of a node: declarations for a program, texts for a module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields, scalar_text, warn_twice
from dorad.dataflow.params import check, check_key, type_of
from dorad.dataflow.settings import ParamSpec, ParamType

if TYPE_CHECKING:
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value

_MODULE_PARAM = r"[A-Za-z0-9_]+"
_NUMBERS = (ParamType.INT, ParamType.FLOAT)


def read_declared(node: Fields) -> dict[str, ParamSpec]:
    """Return the parameters that a node declares; report and skip wrong ones.

    The short form is `name: default`, the long form a mapping with `type`, `default` and so on.
    """
    declared: dict[str, ParamSpec] = {}
    for name, value in node.entries("params").items():
        try:
            check_key(name)
        except TextError as error:
            node.problems.error_in_name(value, error.message, error.hint)
            continue
        spec = _read_spec(value, node.problems)
        if spec is not None:
            declared[name] = spec
    return declared


def read_module_params(node: Fields) -> dict[str, str]:
    """Return the texts that a module passes to its nodes."""
    params: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name, value in node.entries("params").items():
        if not re.fullmatch(_MODULE_PARAM, name):
            node.problems.error_in_name(
                value, f"`{name}` is not a valid parameter name", "use letters, digits and `_`"
            )
        if name.lower() in folded:
            first = folded[name.lower()]
            node.problems.error_in_name(value, f"`{name}` differs only in case from `{first}`")
        folded.setdefault(name.lower(), name)
        text = scalar_text(value, node.problems)
        if text is not None:
            params[name] = text
    return params


def _read_spec(value: Value, problems: Problems) -> ParamSpec | None:
    if isinstance(value.data, dict):
        return _read_long(Fields(value, problems), problems)
    data = value.plain()
    kind = type_of(data)
    if kind is None:
        problems.error(value, "has no value", "write its default, or `{type: float}` and the like")
        return None
    spec = ParamSpec(kind)
    return _with_default(spec, value, problems)


def _read_long(fields: Fields, problems: Problems) -> ParamSpec | None:
    before = len(problems.errors)
    kind = fields.choice("type", ParamType)
    default = fields.take("default")
    choices = fields.items("choices")
    warn_twice(choices, problems)
    description = fields.text("description")
    if kind is None and default is not None and not fields.has("type"):
        kind = type_of(default.plain())
    bounds = {name: _bound(fields, name, kind, problems) for name in ("min", "max")}
    misspelt = fields.finish()
    if kind is None:
        if not fields.has("type") and "type" not in misspelt:
            problems.error_in_name(
                fields.owner,
                "needs `type` or `default`",
                "a mapping as value is written `default: {…}`",
            )
        return None
    low, high = bounds["min"], bounds["max"]
    if low is not None and high is not None and low > high:
        problems.error(fields.name_of("min"), f"is above `max`, which is {high}")
    if len(problems.errors) > before:
        return None
    spec = ParamSpec(kind, None, low, high, (), description)
    allowed = [_checked(spec, choice, problems) for choice in choices]
    if fields.has("choices") and not allowed:
        problems.error(fields.name_of("choices"), "allows nothing: the list is empty")
    if len(problems.errors) > before:
        return None
    spec = ParamSpec(kind, None, low, high, tuple(allowed), description)
    return spec if default is None else _with_default(spec, default, problems)


def _bound(fields: Fields, name: str, kind: ParamType | None, problems: Problems) -> float | None:
    value = fields.take(name)
    if value is None or kind is None:
        return None
    if kind not in _NUMBERS:
        problems.error_in_name(value, f"only numbers have a `{name}`, and the type is `{kind}`")
        return None
    bound: float | None = _checked(ParamSpec(kind), value, problems)
    return bound


def _with_default(spec: ParamSpec, value: Value, problems: Problems) -> ParamSpec | None:
    default = _checked(spec, value, problems)
    if default is None:
        return None
    return ParamSpec(spec.type, default, spec.minimum, spec.maximum, spec.choices, spec.description)


def _checked(spec: ParamSpec, value: Value, problems: Problems) -> Any:
    """Return the value as the parameter stores it; report an invalid one and return None."""
    try:
        return check(spec, value.plain())
    except TextError as error:
        problems.text_error(value, error)
        return None
