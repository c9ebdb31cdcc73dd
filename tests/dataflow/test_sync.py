"""`sync` of a node."""

import pytest

from dorad.dataflow.model import Sync
from tests.dataflow.reading import path_node_text, problem, problems, read

_INPUTS = """\
outputs: [o]
inputs:
  left: a/o
  right: {source: a/o, queue_policy: latest}
  depth: a/o
  tick: dora/timer/secs/1
  all: {source: b/o, queue_policy: backpressure}
  kept: {source: a/o, latched: true}
  slow: {source: a/o, max_rate_hz: 1}
"""


def sync(text: str) -> str:
    """A dataflow whose first node has this `sync`, in line 13."""
    last = "  - {id: b, path: b.py, outputs: [o]}\n"
    return path_node_text(_INPUTS + f"sync: {text}") + last


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("~", ()),
        (
            "{inputs: [left, right], tolerance_ms: 5}",
            (Sync("sync", ("left", "right"), 5_000_000),),
        ),
        (
            "{inputs: [right, left, depth], tolerance_ms: 0.5, name: rgbd}",
            (Sync("rgbd", ("right", "left", "depth"), 500_000),),
        ),
        (
            "[{inputs: [left, right], tolerance_ms: 0}]",
            (Sync("sync", ("left", "right"), 0),),
        ),
    ],
)
def test_forms(written: str, found: tuple[Sync, ...]) -> None:
    node = read(sync(written)).nodes[0]
    assert node.sync == found
    assert node.may_skip("left") == bool(found)
    assert not node.may_skip("tick")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("5", "sync: must be a mapping with `inputs` and `tolerance_ms`, not 5"),
        ("{inputs: [left, right]}", "sync: needs `tolerance_ms` (how far apart"),
        ("{tolerance_ms: 1}", "sync: needs `inputs` (a list of two or more)"),
        ("{inputs: [left], tolerance_ms: 1}", "sync.inputs: must name two inputs or more"),
        ("{inputs: left, tolerance_ms: 1}", "sync.inputs: must be a list, not `left`"),
        (
            "{inputs: [left, rihgt], tolerance_ms: 1}",
            "sync.inputs[1]: the node has no input `rihgt` (did you mean `right`?)",
        ),
        (
            "{inputs: [left, right], tolerance_ms: -1}",
            "sync.tolerance_ms: must be a number from 0 to 3.6e+06, not -1",
        ),
        (
            "{inputs: [left, right], tolerance_ms: 1, name: depth}",
            "sync.name: `depth` is already the name of an input (give it its own `name`)",
        ),
        (
            "{inputs: [left, right], tolerance_ms: 1, tolerance: 1}",
            "sync.tolerance: unknown key `tolerance` (did you mean `tolerance_ms`?)",
        ),
        ("{inputs: [left, right], tolerance: 1}", "sync.tolerance: unknown key `tolerance` (did"),
        (
            "{inputs: [left, tick], tolerance_ms: 1}",
            "sync.inputs[1]: `tick` receives `dora/timer/secs/1`; only outputs of nodes are sync",
        ),
        (
            "{inputs: [left, all], tolerance_ms: 1}",
            "sync.inputs[1]: the synchronised input `all` cannot have `queue_policy: backpressur",
        ),
        (
            "{inputs: [left, kept], tolerance_ms: 1}",
            "sync.inputs[1]: the synchronised input `kept` cannot be `latched`",
        ),
        (
            "{inputs: [left, slow], tolerance_ms: 1}",
            "sync.inputs[1]: the synchronised input `slow` cannot have `max_rate_hz`",
        ),
    ],
)
def test_mistakes(written: str, message: str) -> None:
    found = problem(sync(written))
    hint = f" ({found.hint})" if found.hint else ""
    error = f"{found.key.removeprefix('nodes[0].')}: {found.message}{hint}"
    assert error.startswith(message)


def test_an_input_is_in_one_group_only_and_groups_have_different_names() -> None:
    first = "{inputs: [left, right], tolerance_ms: 1}"
    found = problems(sync(f"[{first}, {{inputs: [right, depth], tolerance_ms: 1}}]"))
    assert [f"{each.key}: {each.message}" for each in found] == [
        "nodes[0].sync[1]: `sync` is already the name of another group",
        "nodes[0].sync[1].inputs[0]: `right` is already in the group `sync`",
    ]


def test_a_mistake_has_its_own_place() -> None:
    text = sync("\n  inputs: [left, up]\n  tolerance_ms: 1")
    assert str(problem(text)).startswith("flow.yml:14:22: nodes[0].sync.inputs[1]: ")


def test_operators_cannot_synchronise_inputs() -> None:
    found = problem("""\
        nodes:
          - id: a
            operator:
              python: a.py
              sync: {inputs: [a, b], tolerance_ms: 1}
    """)
    assert found.message == "unknown key `sync`"
