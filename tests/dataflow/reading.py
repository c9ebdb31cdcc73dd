"""Short ways to read a dataflow from text, and to see what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest
from hypothesis import HealthCheck, settings

from dorad.dataflow.errors import DataflowError, Problem
from dorad.dataflow.load import parse
from dorad.dataflow.model import Dataflow, NodeSpec

FILE = Path("flow.yml")

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: a busy machine is no failure."""


def read(text: str, **environ: str) -> Dataflow:
    return parse(dedent(text), path=FILE, environ=environ)


def problems(text: str, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(DataflowError) as caught:
        read(text, **environ)
    return caught.value.problems


def problem(text: str, **environ: str) -> Problem:
    found = problems(text, **environ)
    assert len(found) == 1, [str(one) for one in found]
    return found[0]


def node_text(keys: str) -> str:
    """A dataflow of one node `a` with these keys beside its `id`, the first in line 3."""
    return "nodes:\n  - id: a\n" + indent(dedent(keys).strip("\n"), "    ") + "\n"


def path_node_text(keys: str) -> str:
    """The same with a `path` in line 3; the keys start in line 4, column 5."""
    return node_text("path: a.py\n" + dedent(keys).strip("\n"))


def node(keys: str, **environ: str) -> NodeSpec:
    return read(node_text(keys), **environ).nodes[0]


def path_node(keys: str, **environ: str) -> NodeSpec:
    return read(path_node_text(keys), **environ).nodes[0]


def error(keys: str, **environ: str) -> str:
    """The only problem of a node `a` with `path: a.py` and these keys, without its place."""
    found = problem(path_node_text(keys), **environ)
    hint = f" ({found.hint})" if found.hint else ""
    return f"{found.key.removeprefix('nodes[0].')}: {found.message}{hint}"
