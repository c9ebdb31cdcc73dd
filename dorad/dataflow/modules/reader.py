"""Read the files of modules and of nested modules, each once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.dataflow.document import MAX_VALUES, read_document
from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.model import NodeKind, NodeSpec
from dorad.dataflow.modules.checks import (
    check_bindings,
    check_members,
    check_paths,
    read_routes,
)
from dorad.dataflow.modules.module import Header, Level, Member, read_header
from dorad.dataflow.nodes import read_node
from dorad.dataflow.ports import read_build
from dorad.dataflow.problems import Problems
from dorad.dataflow.text import read_text
from dorad.dataflow.value import Value, walk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.modules.project import Project

_log = logging.getLogger(__name__)

MAX_FILE_SIZE = 1 << 20
"""Bytes, as in dora 1.x."""
MAX_NESTED = 8
"""Maximum depth of modules in modules, as in dora 1.x."""


class ModuleReader:
    """The modules of one dataflow. A file that is used twice is read and reported once."""

    def __init__(self, project: Project, environ: Mapping[str, str]) -> None:
        self.project = project
        self.problems: list[Problems] = []
        """The problems of all files, in reading order."""
        self._environ = environ
        self._outside: dict[str, NodeSpec] = {}
        self._known: dict[Path, Level | None] = {}

    def level(
        self,
        file: Path,
        members: tuple[Member, ...],
        root: Value,
        problems: Problems,
        *,
        header: Header | None = None,
        build: tuple[str, ...] = (),
        within: tuple[Path, ...] = (),
    ) -> Level:
        """Return the nodes of one file with the modules that they name; report mistakes.

        Without `header` it is the dataflow itself. `within` are the files that lead here, outermost
        first, ending with `file`.
        """
        values = {value.key: value for value in walk(root)}
        if header is None:
            self._outside = {n.id: n for n, _ in members if n.kind is not NodeKind.MODULE}
        modules: dict[str, Level] = {}
        for node, value in members:
            if node.kind is NodeKind.MODULE and node.module is not None:
                module = self._module(node, value, file.parent, within, problems)
                if module is not None:
                    modules[node.id] = module
                    check_bindings(node, module, values, problems)
        outside: frozenset[str] = frozenset()
        if header is None:
            check_members(members, modules, None, {}, values, problems)
            header = Header()
        else:
            outside = check_members(members, modules, header, self._outside, values, problems)
            for node, value in members:
                check_paths(node, value, self.project, file.parent, problems)
        return Level(
            problems.file,
            file.parent,
            members,
            modules,
            header,
            read_routes(header, members, modules, problems),
            build,
            1 + max((module.depth for module in modules.values()), default=0),
            outside,
            len(values) + sum(modules[node.id].size for node, _ in members if node.id in modules),
        )

    def module(self, file: Path, via: tuple[str, ...], within: tuple[Path, ...]) -> Level | None:
        """Return the module in a file of the project; report and return None if it is unusable."""
        if file not in self._known:
            _log.debug("reading the module %s", file)
            self._known[file] = None
            problems = Problems(self.project.shown(file), via)
            self.problems.append(problems)
            self._known[file] = self._read(file, problems, (*within, file))
        return self._known[file]

    def _module(
        self,
        node: NodeSpec,
        value: Value,
        folder: Path,
        within: tuple[Path, ...],
        problems: Problems,
    ) -> Level | None:
        assert isinstance(value.data, dict)
        target = value.data["module"]
        try:
            file = self.project.find_module(node.module or "", folder)
        except TextError as error:
            problems.text_error(target, error)
            return None
        if file in within:
            cycle = [*within[within.index(file) :], file]
            names = " -> ".join(self.project.shown(one) for one in cycle)
            problems.error(target, f"the module would contain itself: {names}")
            return None
        # `within` starts with the dataflow's own file.
        depth = len(within) - 1
        if depth >= MAX_NESTED:
            problems.error(target, f"modules are nested more than {MAX_NESTED} deep")
            return None
        module = self.module(file, (used_by(node, value, problems), *problems.via), within)
        if module is None:
            return None
        if depth + module.depth > MAX_NESTED:
            problems.error(
                target,
                f"modules are nested more than {MAX_NESTED} deep: {module.depth} in this one,"
                f" which is within {depth}",
            )
            return None
        if module.size > MAX_VALUES:
            problems.error(target, f"more than {MAX_VALUES} values once modules are expanded")
            return None
        return module

    def _read(self, file: Path, problems: Problems, within: tuple[Path, ...]) -> Level | None:
        text = read_text(file, problems, "a module's YAML file", largest=MAX_FILE_SIZE)
        root = None if text is None else read_document(text, problems)
        if root is None:
            return None
        if not isinstance(root.data, dict):
            problems.error(
                root, f"a module is a mapping with `module` and `nodes`, not {root.describe()}"
            )
            return None
        fields = Fields(root, problems)
        header = read_header(fields)
        build = read_build(fields)
        nodes = ((read_node(i, {}, self._environ, problems), i) for i in fields.items("nodes"))
        members = tuple(Member(node, value) for node, value in nodes if node is not None)
        misspelt = fields.finish({"env": "set it in the node that uses the module"})
        if "nodes" not in misspelt and not fields.has("nodes"):
            problems.error_in_name(root, "needs `nodes`", "a list of the module's programs")
        if "module" not in misspelt and not fields.has("module"):
            problems.error_in_name(
                root, "needs `module`", "a module's file starts with its name and its ports"
            )
        if header is None:
            return None
        return self.level(file, members, root, problems, header=header, build=build, within=within)


def used_by(node: NodeSpec, value: Value, problems: Problems) -> str:
    """Return the place where a module is used, in words."""
    return f"`{node.id}` in {problems.file}:{value.line}"
