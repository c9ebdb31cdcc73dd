"""Replace the modules of a dataflow by their nodes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from dorad.dataflow.errors import DataflowError, Problem, TextError
from dorad.dataflow.ids import check_node_id
from dorad.dataflow.model import ModuleUse, NodeSpec, module_of
from dorad.dataflow.modules.flatten import Flattener, rules_of
from dorad.dataflow.modules.module import Level, Member
from dorad.dataflow.modules.project import Project
from dorad.dataflow.modules.reader import ModuleReader
from dorad.dataflow.nodes import read_node
from dorad.dataflow.plain import plain_tree
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.value import Value, walk
from dorad.dataflow.wiring import connect


class Expanded(NamedTuple):
    """The nodes that replace the modules, and these modules."""

    nodes: tuple[NodeSpec, ...]
    modules: tuple[ModuleUse, ...]


def expand(
    root: Value,
    members: Sequence[tuple[NodeSpec, Value]],
    env: Mapping[str, str],
    *,
    path: Path,
    environ: Mapping[str, str],
    strict_types: bool,
    problems: Problems,
) -> Expanded:
    """Return the nodes of a dataflow with every module replaced by its nodes, in `root`, too.

    `members` are the nodes as read from `root`. Mistakes in any of the files go to `problems`; then
    nothing is expanded.
    """
    project = Project(path.absolute().parent, path.parent)
    reader = ModuleReader(project, environ)
    file = project.folder / path.name
    level = reader.level(
        file, tuple(Member(*member) for member in members), root, problems, within=(file,)
    )
    for part in reader.problems:
        problems.errors += part.errors
        problems.warnings += part.warnings
    if problems.errors:
        return Expanded(tuple(node for node, _ in members), ())
    return _flat(level, root, env, project, problems, strict_types=strict_types)


def check_module(path: Path, *, environ: Mapping[str, str]) -> tuple[Level, tuple[Problem, ...]]:
    """Read and check a module's file by itself; return the module and warnings.

    The project is the file's folder, or the current folder if that contains it. Raises
    DataflowError with every problem.
    """
    here = Path(os.path.realpath(path))
    folder = Path.cwd() if here.is_relative_to(Path.cwd()) else here.parent
    shown = path.parent if folder == here.parent else Path(os.path.relpath(folder))
    project = Project(folder, shown)
    reader = ModuleReader(project, environ)
    # The folder stands in for the dataflow's file, which does not exist here.
    level = reader.module(here, (), (project.folder,))
    errors = [problem for reported in reader.problems for problem in reported.errors]
    warnings = [problem for reported in reader.problems for problem in reported.warnings]
    if level is not None and not errors:
        for optional in (True, False):
            reported = _used_once(level, project, optional=optional)
            errors += [problem for problem in reported.errors if problem not in errors]
            warnings += [problem for problem in reported.warnings if problem not in warnings]
    if level is None or errors:
        raise DataflowError(in_order(errors))
    return level, in_order(warnings)


def _used_once(module: Level, project: Project, *, optional: bool) -> Problems:
    """Return the problems of a module in use, with or without its optional inputs."""
    problems = Problems("")
    ports = [port.name for port in module.header.inputs.values() if optional or not port.optional]
    name = module.header.name
    try:
        check_node_id(name)
    except TextError:  # a valid name of the module is not required here
        name = "module"
    outside = f"{name}-outside"
    nodes = [
        {"id": outside, "path": "dynamic", "outputs": ports},
        {"id": name, "module": "m", "inputs": {port: f"{outside}/{port}" for port in ports}},
    ]
    root = plain_tree({"nodes": nodes}, problems)
    assert root is not None
    assert isinstance(root.data, dict)
    values = root.data["nodes"].data
    assert isinstance(values, list)
    members = [
        Member(node, value)
        for value in values
        if (node := read_node(value, {}, None, problems)) is not None
    ]
    level = Level("", project.folder, tuple(members), {name: module})
    _flat(level, root, {}, project, problems, strict_types=False)
    for reported in (problems.errors, problems.warnings):
        reported[:] = [replace(problem, via=problem.via[:-1]) for problem in reported]
    return problems


def _flat(
    level: Level,
    root: Value,
    env: Mapping[str, str],
    project: Project,
    problems: Problems,
    *,
    strict_types: bool,
) -> Expanded:
    local = Problems(problems.file)
    flattener = Flattener(project, local, strict_types=strict_types, rules=rules_of(root))
    values = flattener.nodes(level)
    assert isinstance(root.data, dict)
    root.data["nodes"].data = values
    read = [read_node(value, env, None, local) for value in values]
    by_key = {value.key: value for value in walk(root)}
    nodes = connect([node for node in read if node is not None], by_key, local)
    modules = tuple(flattener.uses)
    problems.errors += (_in_its_file(problem, modules) for problem in local.errors)
    known = {_position(problem) for problem in problems.warnings}
    for warning in local.warnings:
        problem = _in_its_file(warning, modules)
        if _position(problem) not in known:  # reading the files reported the others
            problems.warnings.append(problem)
    return Expanded(nodes, modules)


def _in_its_file(problem: Problem, modules: Iterable[ModuleUse]) -> Problem:
    """Return the problem, positioned in the file of the innermost module with its key."""
    use = module_of(modules, problem.key)
    if use is None:
        return problem
    return replace(problem, file=use.file, key=problem.key.removeprefix(f"{use.key}."), via=use.via)


def _position(problem: Problem) -> tuple[object, ...]:
    return problem.file, problem.line, problem.column, problem.message
