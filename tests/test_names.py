"""A variable has the name of what it holds."""

import ast
from pathlib import Path

import dorad
import dorafleet

ROOT = Path(dorad.__file__).parents[1]
PACKAGES = (dorad, dorafleet)


def named_found(tree: ast.Module) -> list[int]:
    """The lines that give a variable or an argument the name `found`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found")
        or (isinstance(node, ast.arg) and node.arg == "found")
    ]


def test_no_variable_is_called_found() -> None:
    files = (path for each in PACKAGES for path in Path(each.__file__).parent.rglob("*.py"))
    texts = {path: path.read_text() for path in files}
    wrong = {
        str(path.relative_to(ROOT)): lines
        for path, text in texts.items()
        if "found" in text and (lines := named_found(ast.parse(text)))
    }
    # Fields of `dora diff --json`, and of a row of `dorafleet drift`.
    fields = {"dorad/record/compare.py": 1, "dorafleet/rollout/messages.py": 1}
    assert {path: len(lines) for path, lines in wrong.items()} == fields
