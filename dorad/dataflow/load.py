"""From a YAML file to a checked dataflow, or to all its problems at once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.deploy import read_deploy
from dorad.dataflow.document import Value, read_document
from dorad.dataflow.env import read_env
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.fields import Fields
from dorad.dataflow.model import Dataflow, TypeRule
from dorad.dataflow.nodes import read_lone_node, read_node
from dorad.dataflow.plain import plain_tree
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.wiring import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

LARGEST_FILE = 8 << 20
"""Bytes."""

_DEFAULT_HEALTH_CHECK_INTERVAL = 5.0
_INSTEAD = {
    "communication": "remove it: how nodes talk is not for the dataflow to say",
    "_unstable_deploy": "write `deploy`",
    "_unstable_debug": "write `debug`",
}


def load(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Read and check the file at `path`.

    `environ` is what `$NAME` in `env` values refers to (None: this process's environment).
    Raises DataflowError with every problem found, sorted by position; also for a file that is
    missing, a directory, unreadable, too large or not UTF-8.
    """
    problems = Problems(str(path))
    text = _read_text(Path(path), problems)
    if text is None:
        raise DataflowError(problems.errors)
    return parse(text, path=Path(path), environ=environ)


def parse(text: str, *, path: Path, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Check the YAML in `text` as if it were the content of `path`, which is not opened.

    Raises DataflowError with every problem found, sorted by position.
    """
    problems = Problems(str(path))
    root = read_document(text, problems)
    return _read_dataflow(root, path, os.environ if environ is None else environ, problems)


def from_descriptor(descriptor: Mapping[str, Any], *, path: Path) -> Dataflow:
    """The dataflow whose `descriptor` this is; `path` is its file, which is not opened.

    Nothing in it is expanded again. Raises DataflowError with every problem found: its problems
    have keys but no lines.
    """
    problems = Problems(str(path))
    return _read_dataflow(plain_tree(dict(descriptor), problems), path, None, problems)


def load_node(path: str | Path, *, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read the file at `path` that holds one node: an entry of `nodes` by itself.

    Gives it as plain values with `env` expanded by `environ` (None: this process's environment).
    Raises DataflowError as `load` does.
    """
    problems = Problems(str(path))
    text = _read_text(Path(path), problems, "a YAML file with one node")
    root = None if text is None else read_document(text, problems)
    if root is not None:
        read_lone_node(root, os.environ if environ is None else environ, problems)
    if root is None or problems.errors:
        raise DataflowError(in_order(problems.errors))
    node: dict[str, Any] = root.plain()
    return node


def _read_text(path: Path, problems: Problems, what: str = "a dataflow's YAML file") -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        problems.at(0, 0, "no such file", f"give the path of {what}")
        return None
    except IsADirectoryError:
        problems.at(0, 0, "is a directory", f"give the path of {what}")
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.at(0, 0, f"cannot be read: {reason}")
        return None
    if len(data) > LARGEST_FILE:
        problems.at(0, 0, f"is larger than {LARGEST_FILE >> 20} MB", f"is it {what}?")
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        column = len(before) - before.rfind("\n")
        problems.at(
            before.count("\n") + 1,
            column,
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            "save the file as UTF-8",
        )
        return None


def _read_dataflow(
    root: Value | None, path: Path, environ: Mapping[str, str] | None, problems: Problems
) -> Dataflow:
    """The dataflow in the tree, or DataflowError with all `problems`."""
    if root is None:
        raise DataflowError(in_order(problems.errors))
    if not isinstance(root.data, dict):
        problems.error(root, f"a dataflow is a mapping with `nodes`, not {root.describe()}")
        raise DataflowError(problems.errors)
    fields = Fields(root, problems)
    env = read_env(fields.take("env"), environ, problems)
    found = [read_node(item, env, environ, problems) for item in fields.items("nodes")]
    places = {value.key: value for value in _walk(root)}
    interval = fields.seconds("health_check_interval", zero=False)
    dataflow = Dataflow(
        nodes=connect([node for node in found if node is not None], places, problems),
        path=path,
        base_dir=path.absolute().parent,
        env=env,
        exit_when_nodes_finish=fields.flag("exit_when_nodes_finish"),
        health_check_interval=_DEFAULT_HEALTH_CHECK_INTERVAL if interval is None else interval,
        strict_types=fields.flag("strict_types") or False,
        type_rules=_read_type_rules(fields),
        debug=_read_debug(fields),
        deploy=read_deploy(fields),
        warnings=in_order(problems.warnings),
        positions={
            key: (value.name_line, value.name_column)
            for key, value in places.items()
            if value.name_line
        },
    )
    if "nodes" not in fields.finish(_INSTEAD) and not fields.has("nodes"):
        problems.error_in_name(root, "needs `nodes`", "a list of the programs to run")
    if problems.errors:
        raise DataflowError(in_order(problems.errors))
    # last, because reading makes text of what stands where text belongs
    return replace(dataflow, descriptor=root.plain())


def _read_debug(fields: Fields) -> bool:
    block = fields.inside("debug")
    if block is None:
        return False
    debug = block.flag("enable_debug_inspection") or False
    block.finish()
    return debug


def _read_type_rules(fields: Fields) -> tuple[TypeRule, ...]:
    rules: list[TypeRule] = []
    for item in fields.items("type_rules"):
        block = Fields(item, fields.problems, "a mapping with `from` and `to`")
        rules.append(TypeRule(block.required_text("from"), block.required_text("to")))
        block.finish()
    return tuple(rules)


def _walk(value: Value) -> Iterator[Value]:
    yield value
    if isinstance(value.data, dict):
        for child in value.data.values():
            yield from _walk(child)
    elif isinstance(value.data, list):
        for child in value.data:
            yield from _walk(child)
