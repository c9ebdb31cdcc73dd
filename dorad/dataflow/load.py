"""Load a YAML file as a checked dataflow, or report all its problems at once."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dorad.dataflow.deploy import read_deploy
from dorad.dataflow.document import read_document
from dorad.dataflow.env import read_env
from dorad.dataflow.errors import DataflowError, Problem, TextError
from dorad.dataflow.fields import Fields, warn_twice
from dorad.dataflow.model import Dataflow, ModuleUse, NodeKind, NodeSpec, TypeRule
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.nodes import read_lone_node, read_node, refuse_module
from dorad.dataflow.patterns import check_patterns
from dorad.dataflow.plain import plain_tree
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.recording import with_hops
from dorad.dataflow.text import read_text
from dorad.dataflow.types.ports import is_typed
from dorad.dataflow.value import Value, walk
from dorad.dataflow.wiring import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.settings import RecordBlock
    from dorad.dataflow.types.model import TypeDef

_log = logging.getLogger(__name__)

_DEFAULT_HEALTH_CHECK_INTERVAL = 5.0
_INSTEAD = {
    "communication": "remove it: nodes always communicate through shared memory",
    "_unstable_deploy": "write `deploy`",
    "_unstable_debug": "write `debug`",
}


def load(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Read and check the file at `path`.

    `environ` are the variables for `$NAME` in `env` (None: this process's environment). If a port
    has a type, the type files beside the dataflow are read, too. Raises DataflowError with every
    problem, sorted by position; or if the file cannot be read, is too large or not UTF-8.
    """
    problems = Problems(str(path))
    text = read_text(Path(path), problems, pipes=True)
    if text is None:
        raise DataflowError(problems.errors)
    environ = os.environ if environ is None else environ
    return _with_user_types(parse(text, path=Path(path), environ=environ), environ)


def parse(text: str, *, path: Path, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Check the YAML in `text` as the content of `path`, which is not opened.

    Raises DataflowError with every problem, sorted by position.
    """
    problems = Problems(str(path))
    root = read_document(text, problems)
    return _read_dataflow(root, path, os.environ if environ is None else environ, problems)


def from_descriptor(descriptor: Mapping[str, Any], *, path: Path) -> Dataflow:
    """Return the dataflow of a `descriptor`; `path` is its file, which is not opened.

    Nothing in it is expanded again. Raises DataflowError with every problem; problems have keys but
    no lines.
    """
    problems = Problems(str(path))
    return _read_dataflow(plain_tree(dict(descriptor), problems), path, None, problems)


def load_node(
    path: str | Path, *, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Read a file with one node: an entry of `nodes` by itself.

    Return its plain values, with `env` expanded by `environ` (None: this process's environment),
    and the warnings. Raises DataflowError as `load` does.
    """
    problems = Problems(str(path))
    text = read_text(Path(path), problems, "a YAML file with one node", pipes=True)
    root = None if text is None else read_document(text, problems)
    if root is not None:
        read_lone_node(root, os.environ if environ is None else environ, problems)
    if root is None or problems.errors:
        raise DataflowError(in_order(problems.errors))
    node: dict[str, Any] = root.plain()
    return node, in_order(problems.warnings)


def _check_path(path: Path, problems: Problems) -> None:
    """Report a path that cannot be stored or sent, because it is not text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        problems.at(0, 0, "its path is not UTF-8", "rename the file or its folder")


def _read_dataflow(
    root: Value | None, path: Path, environ: Mapping[str, str] | None, problems: Problems
) -> Dataflow:
    """Return the dataflow in the tree. Raises DataflowError with all `problems`."""
    _check_path(path.absolute(), problems)
    root, fields = _checked_root(root, problems)
    env = read_env(fields.take("env"), environ, problems)
    read = [(read_node(item, env, environ, problems), item) for item in fields.items("nodes")]
    members = [(node, item) for node, item in read if node is not None]
    interval = fields.seconds("health_check_interval", zero=False)
    strict_types = fields.flag("strict_types") or False
    modules: tuple[ModuleUse, ...] = ()
    if any(node.kind is NodeKind.MODULE for node, _ in members):
        nodes, modules = _expand(root, members, env, path, environ, strict_types, problems)
        values = {value.key: value for value in walk(root)}
    else:
        values = {value.key: value for value in walk(root)}
        nodes = connect([node for node, _ in members], values, problems)
    dataflow = Dataflow(
        nodes=nodes,
        path=path,
        base_dir=path.absolute().parent,
        env=env,
        exit_when_nodes_finish=fields.flag("exit_when_nodes_finish"),
        safe_to_update=fields.checked("safe_to_update", _command, ()),
        health_check_interval=_DEFAULT_HEALTH_CHECK_INTERVAL if interval is None else interval,
        strict_types=strict_types,
        type_rules=_read_type_rules(fields),
        own_types=_read_own_types(fields),
        debug=_read_debug(fields),
        deploy=read_deploy(fields),
        record=_read_record(fields),
        warnings=in_order(problems.warnings),
        positions={
            key: (value.name_line, value.name_column)
            for key, value in values.items()
            if value.name_line
        },
        modules=modules,
    )
    if "nodes" not in fields.finish(_INSTEAD) and not fields.has("nodes"):
        problems.error_in_name(root, "needs `nodes`", "a list of the programs to run")
    _check_record(dataflow, root, problems)
    if problems.errors:
        _log.debug("%s is refused with %d problems", path, len(problems.errors))
        raise DataflowError(in_order(problems.errors))
    _log.debug("%s: %d nodes, %d modules", path, len(nodes), len(modules))
    mismatches = (dataflow.problem(*each) for each in check_patterns(nodes))
    return replace(
        dataflow,
        nodes=tuple(map(with_hops, nodes)),
        warnings=in_order([*dataflow.warnings, *mismatches]),
        # Last, because reading the file turns numbers into text where text is required.
        descriptor=root.plain(),
    )


def _checked_root(root: Value | None, problems: Problems) -> tuple[Value, Fields]:
    """Return the tree and its fields. Raises DataflowError if it is not that of a dataflow."""
    if root is None:
        raise DataflowError(in_order(problems.errors))
    if not isinstance(root.data, dict):
        hint = "write `nodes:` in a line above it" if isinstance(root.data, list) else None
        problems.error(root, f"a dataflow is a mapping with `nodes`, not {root.describe()}", hint)
        raise DataflowError(problems.errors)
    fields = Fields(root, problems)
    if "nodes" in root.data and root.data["nodes"].data is None:
        problems.warn(root.data["nodes"], "the dataflow has no nodes")
        root.data["nodes"].data = []
    if fields.has("module"):
        problems.error_in_name(
            root.data["module"],
            "this is the file of a module, not a dataflow",
            "name it in a node's `module`, or check it with `dora expand --module`",
        )
        raise DataflowError(problems.errors)
    return root, fields


def _expand(
    root: Value,
    members: list[tuple[NodeSpec, Value]],
    env: Mapping[str, str],
    path: Path,
    environ: Mapping[str, str] | None,
    strict_types: bool,
    problems: Problems,
) -> tuple[tuple[NodeSpec, ...], tuple[ModuleUse, ...]]:
    """Return the nodes with every module replaced by its nodes; `root` changes likewise."""
    if environ is None:  # a descriptor: its modules' files may be on another machine
        for node, value in members:
            if node.kind is NodeKind.MODULE and isinstance(value.data, dict):
                refuse_module(value.data["module"], problems)
        return tuple(node for node, _ in members), ()
    from dorad.dataflow.modules.expansion import expand  # most dataflows have none

    return expand(
        root,
        members,
        env,
        path=path,
        environ=environ,
        strict_types=strict_types,
        problems=problems,
    )


def _read_record(fields: Fields) -> RecordBlock | None:
    if not fields.has("record"):
        fields.ignore("record")
        return None
    from dorad.dataflow.recording import read_recording  # most dataflows are not recorded

    return read_recording(fields)


def _check_record(dataflow: Dataflow, root: Value, problems: Problems) -> None:
    """Report names in `record` that stand for no output."""
    if dataflow.record is None or not isinstance(root.data, dict):
        return
    from dorad.dataflow.recording import topics_in, unknown_names

    unknown = unknown_names(dataflow, (*dataflow.record.topics, *dataflow.record.exclude))
    for value in walk(root.data["record"]):
        if isinstance(value.data, str) and value.data in unknown:
            problems.error(
                value,
                f"no node has an output `{value.data}`",
                did_you_mean(value.data, topics_in(dataflow)),
            )


def _with_user_types(dataflow: Dataflow, environ: Mapping[str, str]) -> Dataflow:
    if not is_typed(dataflow):
        return dataflow
    from dorad.dataflow.types.user import with_user_types  # most dataflows have no types

    return with_user_types(dataflow, environ)


def _read_own_types(fields: Fields) -> tuple[TypeDef, ...]:
    if not fields.has("types"):
        fields.ignore("types")
        return ()
    from dorad.dataflow.types.user import read_inline  # most dataflows define none

    return read_inline(fields)


def _read_debug(fields: Fields) -> bool:
    block = fields.inside("debug")
    if block is None:
        return False
    debug = block.flag("enable_debug_inspection") or False
    block.finish()
    return debug


def _command(text: str) -> tuple[str, ...]:
    """Return the words of a command line. Raises TextError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise TextError(f"is not a command line: {error}") from None
    if not words:
        raise TextError("needs a command", "such as `./is_idle.sh`")
    return words


def _read_type_rules(fields: Fields) -> tuple[TypeRule, ...]:
    rules: list[TypeRule] = []
    items = fields.items("type_rules")
    warn_twice(items, fields.problems)
    for item in items:
        block = Fields(item, fields.problems, "a mapping with `from` and `to`")
        rules.append(TypeRule(block.required_text("from"), block.required_text("to")))
        block.finish()
    return tuple(rules)
