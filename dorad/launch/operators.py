"""The command of an operator node, and the configuration of its operators."""

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
    """Return the code that the node's Python runs; its comment names the node in `ps`."""
    return f"import dora; dora.start_runtime()  # node {node.id}"


def runtime_config(node: NodeSpec, folder: Path) -> str:
    """Return the text of DORA_RUNTIME_CONFIG.

    Raises:
        LaunchError: the node has no operators.
    """
    if not node.operators:
        raise LaunchError("its list of operators is empty")
    return to_json(OperatorEntry(each.id, str(folder / each.source)) for each in node.operators)


def missing_files(node: NodeSpec, dataflow: Dataflow) -> Iterator[tuple[str, str]]:
    """Yield the key of each operator whose file does not exist, and a message."""
    if not node.operators:
        yield f"{node.key}.operators", "the list is empty; there is nothing to run"
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        places = (f"{body}.python.source", f"{body}.python")
        key = next((each for each in places if each in dataflow.positions), body)
        if not operator.source.endswith(".py"):
            yield key, f"`{operator.source}` is not a Python file: its name must end in .py"
            continue
        try:
            programs.find_program(operator.source, programs.folder_of(node, dataflow), "")
        except LaunchError as error:
            yield key, str(error)
