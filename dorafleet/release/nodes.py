"""The dependencies of each node, so that a new release replaces only the nodes that it must.

A node depends on its program, on the Python modules beside it that the program imports, and on
files that its `args` or `env` name. A node with `git` depends on its whole clone. A file that
belongs to no node in this way may be used by any, so every node depends on it.
"""

import ast
import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from dorad.boundedfile import read_bounded
from dorad.dataflow.gitsources import FOLDER, SOURCES, base_of, folder_of
from dorad.dataflow.model import ARCH, ROS2, Dataflow, Input, NodeKind, NodeSpec, ros2_words
from dorad.release.manifest import MAX_INPUT, File, NodeContent, Place

TYPES = "types"
_VARIABLE = re.compile(rf"\$(?:{ARCH}\b|{{{ARCH}}})")
MAX_SOURCE = 4 << 20
"""Bytes of a Python file that is read for its imports."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The nodes of a release, and the files that no node depends on by name."""

    nodes: dict[str, NodeContent]
    shared: list[str]


def node_contents(dataflow: Dataflow, root: Path, files: Sequence[File]) -> Contents:
    """Return the dependencies of each node. `files` are those of the release, below `root`."""
    by_path = {file.path: file for file in files}
    base = _relative(dataflow.base_dir, root)
    named = {node.id: _named_files(node, dataflow, root, by_path.keys()) for node in dataflow.nodes}
    read_at_start = {PurePosixPath(base, dataflow.path.name).as_posix()}
    read_at_start |= {
        _join(_relative(base_of(node, dataflow), root), f"{FOLDER}/{SOURCES}")
        for node in dataflow.nodes
        if node.git is not None
    }
    read_at_start |= {_relative(Path(use.file).absolute(), root) for use in dataflow.modules}
    types = PurePosixPath(base, TYPES).as_posix() + "/"
    used = {path for paths in named.values() for path in paths}
    shared = [
        path
        for path in by_path
        if path not in used and path not in read_at_start and not path.startswith(types)
    ]
    plain = {each["id"]: each for each in dataflow.descriptor["nodes"]}
    whole = {key: value for key, value in dataflow.descriptor.items() if key == "env"}
    place = dataflow.descriptor.get("deploy")
    contents = {}
    for node in dataflow.nodes:
        needed = sorted({*named[node.id], *shared})
        entry = plain[node.id]
        if place and not entry.get("deploy"):
            entry = entry | {"deploy": place}
        description = [_without_inputs(entry), whole, [by_path[each] for each in needed]]
        digest = hashlib.sha256(msgspec.json.encode(description, order="deterministic"))
        inputs = {_bounded(each.id): _bounded(_input_text(each)) for each in node.all_inputs}
        contents[node.id] = NodeContent(
            digest.hexdigest(),
            _is_python(node),
            inputs,
            _place(node, dataflow),
            list(node.secrets),
        )
    return Contents(contents, sorted(shared))


def program_of(node: NodeSpec) -> list[str]:
    """Return the files of a node's programs, as the dataflow names them."""
    if node.kind is NodeKind.PATH and node.path is not None:
        return [node.path if ros2_words(node.path) is None else ROS2]
    return [operator.source for operator in node.operators]


def for_architecture(program: str, arch: str) -> str:
    """Return the path of a program on machines of an architecture."""
    return _VARIABLE.sub(arch, program)


def _is_variant(file: str, path: str) -> bool:
    """Return True if `file` is what a path with the architecture means on some machine."""
    parts = _VARIABLE.split(path)
    return re.fullmatch(r"\w+".join(map(re.escape, parts)), file) is not None


def _place(node: NodeSpec, dataflow: Dataflow) -> Place | None:
    """Return where a node may run, None if anywhere."""
    deploy = node.deploy or dataflow.deploy
    if deploy is None:
        return None
    avoided = [dataflow.ids_of(name) for name in deploy.avoid.nodes]
    place = Place(
        machine=deploy.machine or "",
        labels=dict(deploy.labels),
        cpu=deploy.needs.cpu,
        memory=deploy.needs.memory,
        gpu=deploy.needs.gpu,
        devices=list(deploy.needs.devices or ()),
        avoid_machines=list(deploy.avoid.machines),
        avoid_nodes=sorted({id_ for ids in avoided for id_ in ids} - {node.id}),
    )
    return None if place == Place() else place


def _is_python(node: NodeSpec) -> bool:
    """Return True if the node may use the Python environment; a shell command may call it, too."""
    return node.kind in (NodeKind.PATH, NodeKind.OPERATORS, NodeKind.SHELL, NodeKind.URL)


def _without_inputs(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node and its operators without inputs, which are changed while it runs."""
    plain = {key: value for key, value in node.items() if key != "inputs"}
    if operator := plain.get("operator"):
        plain["operator"] = _without_inputs(operator)
    if operators := plain.get("operators"):
        plain["operators"] = [_without_inputs(each) for each in operators]
    return plain


def _input_text(entry: Input) -> str:
    """Return the source of an input and its options that are not the default."""
    words = [entry.source.text]
    plain = Input(entry.id, entry.source)
    for name in Input.__struct_fields__:
        value = getattr(entry, name)
        if name not in ("id", "source", "long_form") and value != getattr(plain, name):
            words.append(f"{name}={value}")
    return " ".join(words)


def _bounded(text: str) -> str:
    """Return a text, or its beginning with a digest of the whole."""
    if len(text) <= MAX_INPUT:
        return text
    return f"{text[: MAX_INPUT - 100]}… sha256 {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _named_files(node: NodeSpec, dataflow: Dataflow, root: Path, files: Iterable[str]) -> set[str]:
    """Return the files that a node's programs, `args` and `env` name, with what these import."""
    present = set(files)
    here = _relative(folder_of(node, dataflow), root)
    named: set[str] = set()
    if node.git is not None:
        named |= {each for each in present if each.startswith(f"{here}/")}
    for name in program_of(node):
        path = _join(here, name)
        if path in present:
            named |= _with_imports(path, root, present)
        elif ARCH in path:
            # One for each architecture.
            named |= {each for each in present if _is_variant(each, path)}
    for word in _words(node, dataflow.env):
        path = _join(here, word)
        if path in present:
            named |= _with_imports(path, root, present) if path.endswith(".py") else {path}
        elif path not in ("", "."):
            named |= {each for each in present if each.startswith(f"{path}/")}
    return named


def _words(node: NodeSpec, env: Mapping[str, str]) -> Iterator[str]:
    """Yield the words of a node's arguments and variables that could be paths."""
    texts = [node.args or "", *node.own_env.values(), *env.values()]
    for text in texts:
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        for word in words:
            yield word
            yield from word.partition("=")[2::2]


def _with_imports(path: str, root: Path, present: set[str]) -> set[str]:
    """Return a Python file with all files of the release that it imports, and those import."""
    seen, waiting = {path}, [path]
    top = PurePosixPath(path).parent
    while waiting:
        current = waiting.pop()
        if not current.endswith(".py"):
            continue
        for each in _imported(current, top, root, present):
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return seen


def _imported(path: str, top: PurePosixPath, root: Path, present: set[str]) -> Iterator[str]:
    """Yield the files that one Python file imports from the folder of its program."""
    file = root / path
    if file.stat().st_size > MAX_SOURCE:
        return
    try:
        tree = ast.parse(read_bounded(file, MAX_SOURCE))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        # The node itself reports it when it runs.
        return
    package = PurePosixPath(path).parent
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from _module(top, alias.name.split("."), present)
        elif isinstance(statement, ast.ImportFrom):
            base = top
            if statement.level:
                folders = package.parts
                base = PurePosixPath(*folders[: max(0, len(folders) - statement.level + 1)])
            parts = statement.module.split(".") if statement.module else []
            yield from _module(base, parts, present)
            for alias in statement.names:
                yield from _module(base, [*parts, alias.name], present)


def _module(base: PurePosixPath, parts: list[str], present: set[str]) -> Iterator[str]:
    """Yield the files of a module and of the packages around it, as far as they are present."""
    for depth in range(1, len(parts) + 1):
        inside = PurePosixPath(base, *parts[:depth])
        for each in (f"{inside}.py", f"{inside}/__init__.py"):
            if each in present:
                yield each


def _relative(path: Path, root: Path) -> str:
    """Return a path below `root` as releases have it, empty for one outside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else ""


def _join(folder: str, name: str) -> str:
    """Return the path of `name` in a folder of the release; empty if it is outside."""
    parts: list[str] = []
    for part in PurePosixPath(folder, name).parts:
        if part == "/" or (part == ".." and not parts):
            return ""
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
