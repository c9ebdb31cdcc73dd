"""Ports with types: the nodes behind them get the types, and disagreement is reported."""

import pytest

from dorad.dataflow.model import Dataflow
from dorad.dataflow.types.check import check_types

from .conftest import Project

IMAGE, DEPTH = "std/media/v1/Image", "std/media/v1/DepthImage"
FLOW = """\
nodes:
- {id: camera, path: camera.py, outputs: [image]}
- {id: see, module: see.yml, inputs: {image: camera/image}}
"""
SEE = f"""\
module:
  name: see
  inputs: [{{name: image, type: {IMAGE}}}]
  outputs: [{{name: mask, type: {IMAGE}}}, plain]
nodes:
- id: a
  path: a.py
  inputs: {{frame: _mod/image, again: b/plain}}
  outputs: [mask]
- id: b
  path: b.py
  inputs: {{frame: _mod/image}}
  outputs: [plain]
"""


RULED = FLOW + f"type_rules: [{{from: {IMAGE}, to: {DEPTH}}}]\n"


def _warnings(flow: Dataflow) -> list[str]:
    return [str(warning) for warning in flow.warnings]


def test_nodes_get_the_types_of_the_ports(project: Project) -> None:
    project.write("see.yml", SEE)
    flow = project.flow(FLOW)
    assert flow.node("see.a").types.inputs == {"frame": IMAGE}
    assert flow.node("see.a").types.outputs == {"mask": IMAGE}
    assert flow.node("see.b").types.inputs == {"frame": IMAGE}
    assert flow.node("see.b").types.outputs == {}
    assert _warnings(flow) == []


@pytest.mark.parametrize("own", [DEPTH, "std/core/v1/Bytes", f"{IMAGE}[encoding=rgb8]"])
def test_a_type_that_the_type_of_the_port_converts_to_agrees(project: Project, own: str) -> None:
    typed = f"path: a.py\n  input_types: {{frame: '{own}'}}"
    project.write("see.yml", SEE.replace("path: a.py", typed))
    flow = project.flow(RULED)
    assert flow.node("see.a").types.inputs == {"frame": own}
    assert _warnings(flow) == []
    assert bool(_warnings(project.flow(FLOW))) == (own == DEPTH)


def test_types_are_checked_across_modules_and_reported_in_their_files(project: Project) -> None:
    project.write("see.yml", SEE.replace(IMAGE, "acme/v1/Picture"))
    project.write("types/acme/v1.yml", "types: {Picture: {arrow: Struct}}")
    flow = project.flow(f"""
        nodes:
        - {{id: camera, path: c, outputs: [image], output_types: {{image: {IMAGE}}}}}
        - {{id: see, module: see.yml, inputs: {{image: camera/image}}}}
        """)
    found = [str(warning) for warning in check_types(flow).warnings]
    assert len(found) == 2
    assert found[0].startswith("see.yml:8:12: nodes[0].input_types.frame: ")
    assert "`camera/image` sends `std/media/v1/Image`, but `acme/v1/Picture` is" in found[0]


def test_a_type_declared_by_a_node_is_kept(project: Project) -> None:
    project.write(
        "see.yml", SEE.replace("path: a.py", f"path: a.py\n  input_types: {{frame: {IMAGE}}}")
    )
    flow = project.flow(FLOW)
    assert flow.node("see.a").types.inputs == {"frame": IMAGE}
    assert _warnings(flow) == []


@pytest.mark.parametrize(
    ("key", "port"),
    [("input_types: {frame", "the input `image`"), ("output_types: {mask", "the output `mask`")],
)
def test_a_node_that_declares_another_type_is_warned_of(
    project: Project, key: str, port: str
) -> None:
    text = SEE.replace("path: a.py", f"path: a.py\n  {key}: {DEPTH}}}")
    project.write("see.yml", text)
    name = key.replace(": {", ".")
    column = key.index("{") + 4
    (warning,) = _warnings(project.flow(FLOW))
    assert warning == (
        f"see.yml:8:{column}: nodes[0].{name}: `{DEPTH}` does not agree with `{IMAGE}`,"
        f" the type of {port} of see.yml (used by `see` in flow.yml:3)"
    )


def test_with_strict_types_a_mismatch_is_an_error(project: Project) -> None:
    text = SEE.replace("path: a.py", f"path: a.py\n  input_types: {{frame: {DEPTH}}}")
    project.write("see.yml", text)
    assert "does not agree with" in project.error("strict_types: true\n" + FLOW)


def test_types_of_nested_modules_are_compared_at_each_port(project: Project) -> None:
    project.write("see.yml", SEE)
    project.write(
        "outer.yml",
        f"""\
        module:
          name: o
          inputs: [{{name: i, type: {DEPTH}}}]
          outputs: [{{name: plain, type: T}}]
        nodes:
        - {{id: see, module: see.yml, inputs: {{image: _mod/i}}}}
        """,
    )
    flow = project.flow(FLOW.replace("see.yml", "outer.yml").replace("image: c", "i: c"))
    assert flow.node("see.see.a").types.inputs == {"frame": IMAGE}
    assert flow.node("see.see.b").types.outputs == {"plain": "T"}
    assert _warnings(flow) == [
        f"see.yml:{line}:12: nodes[{index}].input_types.frame: `{IMAGE}` does not agree with"
        f" `{DEPTH}`, the type of the input `i` of outer.yml (used by `see` in outer.yml:6,"
        " `see` in flow.yml:3)"
        for index, line in enumerate((8, 12))
    ]


def test_an_open_optional_port_removes_the_type(project: Project) -> None:
    project.write(
        "see.yml",
        f"""\
        module: {{name: see, inputs_optional: [{{name: image, type: {IMAGE}}}]}}
        nodes: [{{id: a, path: a, inputs: {{i: _mod/image}}, input_types: {{i: {IMAGE}}}}}]
        """,
    )
    flow = project.flow("nodes: [{id: see, module: see.yml}]")
    assert flow.nodes[0].types.inputs == {}
    assert _warnings(flow) == []


def test_operators_get_the_types_of_the_ports(project: Project) -> None:
    project.write(
        "see.yml",
        f"""\
        module:
          name: see
          inputs: [{{name: image, type: {IMAGE}}}]
          outputs: [{{name: mask, type: {DEPTH}}}]
        nodes:
        - id: ops
          operators:
          - {{id: x, python: x.py, inputs: {{i: _mod/image}}, outputs: [y]}}
          - {{id: z, python: z.py, inputs: {{y: ops/x/y}}, outputs: [mask]}}
        """,
    )
    x, z = project.node(FLOW, "see.ops").operators
    assert (x.types.inputs, x.types.outputs) == ({"i": IMAGE}, {})
    assert (z.types.inputs, z.types.outputs) == ({}, {"mask": DEPTH})
