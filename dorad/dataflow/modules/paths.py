"""Find the values in a module's file that hold inputs or paths of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.model import NodeKind, NodeSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.dataflow.value import Value

_FILES = ("python", "shared-library", "wasm")


def bodies(node: Value) -> Iterator[Value]:
    """Yield the mappings that may have `inputs`: the node itself and its operators."""
    yield node
    assert isinstance(node.data, dict)
    lone, several = node.data.get("operator"), node.data.get("operators")
    if lone is not None and isinstance(lone.data, dict):
        yield lone
    if several is not None and isinstance(several.data, list):
        yield from (item for item in several.data if isinstance(item.data, dict))


def programs(node: NodeSpec, value: Value) -> Iterator[Value]:
    """Yield the values that are paths relative to the file's folder, not to a git clone."""
    for body in bodies(value):
        assert isinstance(body.data, dict)
        names: tuple[str, ...] = _FILES
        if body is value:
            names = ("path",) if node.kind is NodeKind.PATH and node.git is None else ()
        for name in names:
            program = body.data.get(name)
            if program is not None and isinstance(program.data, dict):
                program = program.data.get("source")
            if program is not None and isinstance(program.data, str):
                yield program
