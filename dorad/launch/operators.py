"""How the process of an operator node is started, and what it is told of its operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.launch import programs
from dorad.launch.model import LaunchError
from dorad.node.runtime.config import OperatorEntry, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dorad.dataflow.model import Dataflow, NodeSpec


def code(node: NodeSpec) -> str:
    """What the node's Python runs; the comment is for those who look at a list of processes."""
    return f"import dora; dora.start_runtime()  # node {node.id}"


def runtime_config(node: NodeSpec, folder: Path) -> str:
    """The text of DORA_RUNTIME_CONFIG.

    Raises:
        LaunchError: there is nothing to run.
    """
    if not node.operators:
        raise LaunchError("its list of operators is empty")
    return to_json(OperatorEntry(each.id, str(folder / each.source)) for each in node.operators)


def missing_files(node: NodeSpec, dataflow: Dataflow) -> Iterator[tuple[str, str]]:
    """Yield the place of each operator whose file is not there, and what is wrong with it."""
    if not node.operators:
        yield f"{node.key}.operators", "the list is empty; there is nothing to run"
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        places = (f"{body}.python.source", f"{body}.python")
        key = next((each for each in places if each in dataflow.positions), body)
        if not operator.source.endswith(".py"):
            yield key, f"`{operator.source}` is no Python file: its name must end in .py"
            continue
        try:
            programs.find_program(operator.source, dataflow.base_dir, "")
        except LaunchError as error:
            yield key, str(error)
