"""Read the `operator` or `operators` of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields, scalar_text
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.inputs import read_inputs
from dorad.dataflow.kinds import OPERATOR_NODE_ONLY
from dorad.dataflow.model import Operator
from dorad.dataflow.ports import (
    LOG_KEYS,
    read_build,
    read_logging,
    read_outputs,
    read_types,
)
from dorad.dataflow.settings import Logging

if TYPE_CHECKING:
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value

DEFAULT_ID = "op"
_UNSET = Logging()
_LANGUAGES = ("python", "shared-library", "wasm")
_OF_NODE = dict.fromkeys(
    OPERATOR_NODE_ONLY, "it belongs to the node, beside `operator` or `operators`"
)
_INSTEAD = {"sync": "operators receive one message at a time; write a node with a `path`"}


def read_operators(node: Fields) -> tuple[Operator, ...]:
    """Return all operators of a node.

    An unknown key in an operator is ignored with a warning; dora 1.x ignores it silently.
    """
    lone = node.take("operator")
    if lone is not None:
        return (_read_operator(lone, node.problems, DEFAULT_ID),)
    operators: list[Operator] = []
    first_at: dict[str, str] = {}
    logging: dict[str, str] = {}
    for item in node.items("operators"):
        operator = _read_operator(item, node.problems, None)
        if operator.id in first_at:
            first = first_at[operator.id]
            node.problems.error(
                item, f"two operators with the id `{operator.id}`, the first {first}"
            )
        first_at.setdefault(operator.id, item.where())
        for key in LOG_KEYS:
            value = item.data.get(key) if isinstance(item.data, dict) else None
            if value is None or value.data is None:
                continue
            if key in logging:
                node.problems.error_in_name(
                    value, f"only one operator of a node may set it; first {logging[key]}"
                )
            logging.setdefault(key, value.where())
        operators.append(operator)
    return tuple(operators)


def _read_operator(item: Value, problems: Problems, default_id: str | None) -> Operator:
    body = Fields(item, problems, "a mapping with `python` and the operator's ports")
    if default_id is not None and not body.has("id"):
        body.ignore("id")
        operator_id = default_id
    else:
        operator_id = body.required_text("id")
        if operator_id:
            body.checked("id", _check_operator_id, None)
    inputs, outputs = read_inputs(body), read_outputs(body)
    language, source, conda_env = _read_source(body)
    operator = Operator(
        operator_id,
        language,
        source,
        conda_env,
        body.text("name"),
        body.text("description"),
        inputs,
        outputs,
        read_types(body, inputs, outputs),
        read_build(body),
        read_logging(body, outputs),
    )
    has_source = any(map(body.has, _LANGUAGES))
    misspelt = body.finish(_INSTEAD, lenient=has_source, elsewhere=_OF_NODE)
    has_source = has_source or not misspelt.isdisjoint(_LANGUAGES)
    if isinstance(item.data, dict) and not has_source:
        problems.error_in_name(item, f"needs one of {', '.join(_LANGUAGES)}")
    return operator


def read_shared_logging(node: Fields, operators: tuple[Operator, ...]) -> Logging:
    """Return the log routing of the process that all operators share.

    Each key can be set once, by an operator or by the node, and holds for the whole process. In the
    node, `send_stdout_as` and `send_logs_as` are `<operator>/<output>`.
    """
    outputs = tuple(f"{each.id}/{output}" for each in operators for output in each.outputs)
    logging = read_logging(node, outputs)
    for operator in operators:
        for key in LOG_KEYS:
            value = getattr(operator.logging, key)
            if value == getattr(_UNSET, key):
                continue
            if node.has(key):
                node.problems.error_in_name(
                    node.name_of(key),
                    f"the operator `{operator.id}` sets it, too",
                    "keep one",
                )
            text = f"{operator.id}/{value}" if key.startswith("send_") else value
            changes: dict[str, Any] = {key: text}
            logging = replace(logging, **changes)
    return logging


def _check_operator_id(text: str) -> None:
    check_data_id(text)
    if "/" in text:
        raise TextError(f"the operator id `{text}` contains a `/`")


def _read_source(body: Fields) -> tuple[str, str, str | None]:
    """Return language, file and conda environment."""
    given = [language for language in _LANGUAGES if body.has(language)]
    for extra in given[1:]:
        body.problems.error_in_name(
            body.name_of(extra), f"`{given[0]}` and `{extra}` exclude each other"
        )
    python = body.take("python")
    source, conda_env = "", None
    if python is not None and isinstance(python.data, dict):
        block = Fields(python, body.problems)
        source, conda_env = block.required_text("source"), block.text("conda_env")
        block.finish(lenient=True)
    elif python is not None:
        source = scalar_text(python, body.problems) or ""
    files = {"python": source} | {key: body.text(key) or "" for key in _LANGUAGES[1:]}
    language = given[0] if given else "python"
    return language, files[language], conda_env
