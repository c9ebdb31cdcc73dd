"""Check the manifest of a node, `dora-node.yml`: name, program, types of the ports."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dorad.dataflow.document import read_document
from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.text import read_text
from dorad.dataflow.types.definitions import drafts, read_drafts
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.urn import parse_urn

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.dataflow.value import Value

VERSION = 1
MAX_FILE_SIZE = 1 << 20
"""Bytes."""

_NAME = re.compile(r"[a-z0-9._-]+")
_NAMESPACE = re.compile(r"[a-z0-9-]+")
_PLATFORM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANGE = re.compile(r"\s*(\*|(=|>=?|<=?|~|\^)?\s*\d+(\.(\d+|\*)){0,2}(-[\w.-]+)?(\+[\w.-]+)?)\s*")


class Language(StrEnum):
    """The language of a node."""

    PYTHON = "python"
    RUST = "rust"
    C = "c"
    CPP = "cpp"


class Category(StrEnum):
    """The purpose of a node."""

    SENSOR = "sensor"
    ACTUATOR = "actuator"
    ROBOT = "robot"
    TRANSFORM = "transform"
    FILTER = "filter"
    ML_INFERENCE = "ml-inference"
    LLM = "llm"
    SPEECH = "speech"
    COMMUNICATION = "communication"
    RECORDER = "recorder"
    VISUALIZATION = "visualization"
    SIMULATOR = "simulator"
    DEBUG = "debug"


class VariableType(StrEnum):
    """The type of an environment variable."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"


_DEFAULTS: dict[VariableType, tuple[type, ...]] = {
    VariableType.STRING: (str,),
    VariableType.INT: (int,),
    VariableType.FLOAT: (int, float),
    VariableType.BOOL: (bool,),
}


def check_manifest(path: Path) -> tuple[int, int]:
    """Check the manifest at `path`; return how many inputs and outputs it declares.

    Raises DataflowError with every problem, sorted by position.
    """
    problems = Problems(str(path))
    text = read_text(path, problems, "a node's manifest", largest=MAX_FILE_SIZE)
    start = "a manifest starts with `apiVersion: 1`"
    root = None if text is None else read_document(text, problems, start)
    counts = (0, 0)
    if root is not None:
        counts = _read(Fields(root, problems, "a mapping with `apiVersion: 1`"))
    if problems.errors:
        raise DataflowError(in_order(problems.errors))
    return counts


def _read(body: Fields) -> tuple[int, int]:
    if body.has("apiVersion"):
        body.integer("apiVersion", minimum=VERSION, maximum=VERSION)
    else:
        body.required_text("apiVersion", f"write `apiVersion: {VERSION}`")
    for name, check in (("name", _check_name), ("namespace", _check_namespace)):
        if body.required_text(name):
            body.checked(name, check, None)
    if not body.has("runtime"):
        body.required_text("runtime", f"one of {', '.join(Language)}")
    body.choice("runtime", Language)
    if body.required_text("entrypoint", "the program, relative to the node's folder"):
        body.checked("entrypoint", _check_entrypoint, None)
    for name in ("description", "build"):
        body.text(name)
    body.texts("keywords")
    body.texts("categories", _one_of(Category))
    body.texts("platforms", _check_platform)
    body.checked("dora", _check_range, None)
    body.checked("example", _check_example, None)
    library = _read_types(body)
    inputs = _read_ports(body, "inputs", library)
    outputs = _read_ports(body, "outputs", library)
    _read_env(body)
    _read_requirements(body)
    body.finish()
    return inputs, outputs


def _read_types(body: Fields) -> Library:
    entries = body.entries("types")
    namespace = body.text("namespace") or ""
    for name, value in entries.items():
        if not name.startswith(f"{namespace}/"):
            body.problems.error_in_name(
                value,
                "a node's types must start with its namespace",
                f"write `{namespace}/v1/…`",
            )
    drafted = list(drafts(entries, "", body.problems))
    return Library(read_drafts(drafted))


def _read_ports(body: Fields, side: str, library: Library) -> int:
    ports = body.entries(side)
    for name, value in ports.items():
        try:
            check_data_id(name)
        except TextError as error:
            body.problems.error_in_name(value, error.message, error.hint)
        if value.data is None:
            body.problems.error(value, "must be a mapping, not nothing", "write `{}`")
            continue
        port = Fields(value, body.problems, "a mapping with `type` and `description`")
        port.checked("type", lambda text: _check_type(text, library), None)
        required = port.flag("required")
        if side == "outputs" and required is not None:
            body.problems.error_in_name(port.name_of("required"), "only inputs can be required")
        port.text("description")
        port.finish()
    return len(ports)


def _check_type(text: str, library: Library) -> None:
    urn = parse_urn(text)
    if library.get(urn.base) is None:
        raise TextError(f"unknown type `{urn.base}`", library.hint(urn.base))


def _read_env(body: Fields) -> None:
    for name, value in body.entries("env").items():
        if not _VARIABLE.fullmatch(name):
            hint = "use letters, digits and `_`, not starting with a digit"
            body.problems.error_in_name(value, "is not a valid variable name", hint)
        if value.data is None:
            body.problems.error(value, "must be a mapping, not nothing", "write `{}`")
            continue
        block = Fields(value, body.problems, "a mapping with `type` and `default`")
        kind = block.choice("type", VariableType)
        default = block.take("default")
        if default is not None:
            _check_default(default, kind, body.problems)
        block.text("description")
        block.finish()


def _check_default(default: Value, kind: VariableType | None, problems: Problems) -> None:
    if isinstance(default.data, dict | list):
        problems.error(default, f"must be a plain value, not {default.describe()}")
    elif kind is not None and (
        not isinstance(default.data, _DEFAULTS[kind])
        or (isinstance(default.data, bool) and kind is not VariableType.BOOL)
    ):
        problems.error(default, f"is not of the type `{kind}`")


def _read_requirements(body: Fields) -> None:
    block = body.inside("requirements")
    if block is not None:
        block.texts("hardware")
        block.text_map("system")
        block.finish()


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise TextError(f"`{text}` is not a valid name", "use `a-z`, digits, `-`, `_` and `.`")


def _check_namespace(text: str) -> None:
    if not _NAMESPACE.fullmatch(text):
        raise TextError(f"`{text}` is not a valid namespace", "use `a-z`, digits and `-`")


def _check_entrypoint(text: str) -> None:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise TextError(f"`{text}` is not within the node's folder", "a relative path without `..`")


def _check_platform(text: str) -> None:
    if not _PLATFORM.fullmatch(text):
        raise TextError(f"`{text}` is not a platform", "such as `linux-x86_64`")


def _check_range(text: str) -> None:
    if not all(map(_RANGE.fullmatch, text.split(","))):
        raise TextError(f"`{text}` is not a range of versions", 'such as `">=0.4, <2"`')


def _check_example(text: str) -> None:
    problems = Problems("example")
    read_document(text, problems)
    if problems.errors:
        raise TextError(f"is not valid YAML: {problems.errors[0].message}")


def _one_of(kinds: type[StrEnum]) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in list(kinds):
            raise TextError(f"`{text}` is not one of {', '.join(kinds)}")

    return check
