"""How the objects of the daemon and of a node are put together."""

import ast
from collections.abc import Iterator
from pathlib import Path

import dorad.daemon
from dorad.node.node import Node
from dorad.node.offline.testing import MockNode

DAEMON = Path(dorad.daemon.__file__).parent


def late_callbacks(tree: ast.Module) -> Iterator[int]:
    """The lines that give another object a function to call, after it was made."""
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if not isinstance(target, ast.Attribute) or ast.unparse(target.value) == "self":
                continue
            if isinstance(statement.value, ast.Lambda) or target.attr.startswith(("on_", "when_")):
                yield statement.lineno


def test_the_daemon_sets_no_callback_after_an_object_was_made() -> None:
    late = [
        f"{path.relative_to(DAEMON)}:{line}"
        for path in sorted(DAEMON.rglob("*.py"))
        for line in late_callbacks(ast.parse(path.read_text()))
    ]
    assert late == []


def test_a_callback_that_is_set_later_would_be_seen() -> None:
    tree = ast.parse("a.b.on_end = f\nself.on_end = f\na.call = lambda: 1\na.count = 1")
    assert list(late_callbacks(tree)) == [1, 3]


def test_a_node_is_one_class_and_its_substitute_has_all_its_methods() -> None:
    assert Node.__bases__ == (object,)
    assert MockNode.__bases__ == (Node,)
