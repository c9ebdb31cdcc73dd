"""The nodes of a module in the dataflow that uses it: ids, wiring, and what they inherit."""

import json

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.expand import flat_yaml
from dorad.dataflow.load import from_descriptor, parse
from dorad.dataflow.model import LogSource, NodeKind, NodeOutput, QueuePolicy

from .conftest import Project

FLOW = """\
nodes:
  - id: camera
    path: camera.py
    outputs: [image]
  - id: nav
    module: modules/nav.yml
    inputs: {image: camera/image}
  - id: wheels
    path: wheels.py
    inputs: {speed: nav/speed}
"""
NAV = """\
module:
  name: navigation
  inputs: [image]
  inputs_optional: [map]
  outputs: [speed]
nodes:
  - id: look
    path: look.py
    inputs: {frame: _mod/image, map: _mod/map}
    outputs: [goal]
  - id: plan
    path: plan.py
    inputs: {goal: look/goal, tick: dora/timer/hz/10}
    outputs: [speed]
"""


@pytest.fixture
def nav(project: Project) -> Project:
    project.write("modules/nav.yml", NAV)
    return project


def _use(keys: str) -> str:
    """The dataflow with more keys for the node that is the module."""
    return FLOW.replace("  - id: wheels", f"    {keys}\n  - id: wheels")


def test_the_nodes_of_a_module_take_its_place(nav: Project) -> None:
    flow = nav.flow(FLOW)
    assert [node.id for node in flow.nodes] == ["camera", "nav.look", "nav.plan", "wheels"]
    assert all(node.kind is NodeKind.PATH for node in flow.nodes)


def test_inputs_from_ports_get_the_sources_wired_to_them(nav: Project) -> None:
    (frame,) = nav.node(FLOW, "nav.look").inputs
    assert (frame.id, frame.source) == ("frame", NodeOutput("camera", "image"))


def test_an_optional_port_without_a_source_takes_its_inputs_away(nav: Project) -> None:
    flow = nav.flow(
        FLOW.replace("{image: camera/image}", "{image: camera/image, map: camera/image}")
    )
    assert [found.id for found in flow.node("nav.look").inputs] == ["frame", "map"]


def test_inputs_from_nodes_of_the_module_and_timers_keep_their_meaning(nav: Project) -> None:
    goal, tick = nav.node(FLOW, "nav.plan").inputs
    assert goal.source == NodeOutput("nav.look", "goal")
    assert tick.source.text == "dora/timer/hz/10"


def test_an_output_of_a_module_is_that_of_the_node_that_sends_it(nav: Project) -> None:
    (speed,) = nav.node(FLOW, "wheels").inputs
    assert speed.source == NodeOutput("nav.plan", "speed")


def test_nodes_inside_can_be_named_from_outside(nav: Project) -> None:
    flow = nav.flow(FLOW.replace("nav/speed", "nav.look/goal"))
    assert flow.node("wheels").inputs[0].source == NodeOutput("nav.look", "goal")


@pytest.mark.parametrize(
    ("inner", "outer", "size", "policy", "timeout"),
    [
        ("_mod/image", "camera/image", 10, QueuePolicy.DROP_OLDEST, None),
        ("_mod/image", "{source: camera/image, queue_size: 3}", 3, QueuePolicy.DROP_OLDEST, None),
        ("{source: _mod/image, queue_size: 2}", "camera/image", 2, QueuePolicy.DROP_OLDEST, None),
        (
            "{source: _mod/image, queue_size: 2, input_timeout: 1}",
            "{source: camera/image, queue_size: 3, queue_policy: backpressure, input_timeout: 9}",
            2,
            QueuePolicy.BACKPRESSURE,
            1.0,
        ),
    ],
)
def test_options_of_an_input_override_those_of_the_source_wired_to_the_port(
    project: Project, inner: str, outer: str, size: int, policy: QueuePolicy, timeout: float | None
) -> None:
    project.write("modules/nav.yml", NAV.replace("frame: _mod/image", f"frame: {inner}"))
    frame = project.node(FLOW.replace("image: camera/image", f"image: {outer}"), "nav.look").inputs[
        0
    ]
    assert frame.source == NodeOutput("camera", "image")
    assert (frame.queue_size, frame.queue_policy, frame.input_timeout) == (size, policy, timeout)


def test_env_fills_in_missing_variables_of_the_nodes(project: Project) -> None:
    project.write(
        "modules/nav.yml", NAV.replace("path: look.py", "path: look.py\n    env: {A: in}")
    )
    text = "env: {C: all}\n" + _use("env: {A: out, B: $X}")
    flow = project.flow(text, X="$y")
    assert flow.node("nav.look").own_env == {"A": "in", "B": "$y"}
    assert flow.node("nav.plan").own_env == {"A": "out", "B": "$y"}
    assert flow.node("nav.plan").env["C"] == "all"
    assert flow.node("wheels").own_env == {}


def test_deploy_is_for_nodes_that_have_none(project: Project) -> None:
    inner = NAV.replace("path: look.py", "path: look.py\n    deploy: {machine: own}")
    project.write("modules/nav.yml", inner)
    flow = project.flow(_use("deploy: {machine: a}"))
    deploys = {node.id: node.deploy.machine for node in flow.nodes if node.deploy}
    assert deploys == {"nav.look": "own", "nav.plan": "a"}


def test_build_commands_of_a_module_run_before_those_of_its_nodes(project: Project) -> None:
    inner = NAV.replace("path: look.py", "path: look.py\n    build: make look")
    project.write("modules/nav.yml", inner + "build: make module\n")
    flow = project.flow(_use("build: make node"))
    assert flow.node("nav.look").build == ("make node", "make module", "make look")
    assert flow.node("nav.plan").build == ("make node", "make module")
    assert flow.node("wheels").build == ()


def test_one_module_can_be_used_twice(nav: Project) -> None:
    again = "\n  - {id: back, module: modules/nav.yml, inputs: {image: nav/speed}}\n"
    flow = nav.flow(FLOW.rstrip() + again)
    assert [node.id for node in flow.nodes if node.id.startswith("back")] == [
        "back.look",
        "back.plan",
    ]
    assert flow.node("back.look").inputs[0].source == NodeOutput("nav.plan", "speed")


def test_modules_in_modules(nav: Project) -> None:
    nav.write(
        "outer.yml",
        """
        module: {name: outer, inputs: [eye], inputs_optional: [map], outputs: [speed]}
        build: make outer
        nodes:
          - id: inner
            module: modules/nav.yml
            inputs: {image: {source: _mod/eye, queue_size: 4}, map: _mod/map}
            env: {B: inner}
          - {id: log, path: log.py, inputs: {speed: inner/speed}}
        """,
    )
    flow = nav.flow(
        """
        nodes:
          - {id: camera, path: camera.py, outputs: [image]}
          - id: o
            module: outer.yml
            env: {A: outer, B: outer}
            inputs: {eye: {source: camera/image, queue_size: 9, queue_policy: backpressure}}
          - {id: wheels, path: wheels.py, inputs: {speed: o/speed, inside: o.inner.look/goal}}
        """
    )
    ids = ["camera", "o.inner.look", "o.inner.plan", "o.log", "wheels"]
    assert [node.id for node in flow.nodes] == ids
    (frame,) = flow.node("o.inner.look").inputs
    assert (frame.source, frame.queue_size) == (NodeOutput("camera", "image"), 4)
    assert frame.queue_policy is QueuePolicy.BACKPRESSURE
    assert flow.node("o.inner.plan").inputs[0].source == NodeOutput("o.inner.look", "goal")
    assert flow.node("o.log").inputs[0].source == NodeOutput("o.inner.plan", "speed")
    assert flow.node("wheels").inputs[0].source == NodeOutput("o.inner.plan", "speed")
    assert flow.node("o.inner.plan").own_env == {"A": "outer", "B": "inner"}
    assert flow.node("o.inner.plan").build == ("make outer",)
    assert flow.node("o.inner.plan").path == "modules/plan.py"


def test_a_log_input_may_name_a_node_of_the_module(project: Project) -> None:
    logs = "logs: dora/logs/warn/look, any: dora/logs//look, all: dora/logs"
    project.write("modules/nav.yml", NAV.replace("tick: dora/timer/hz/10", logs))
    _, level, named, everything = project.node(FLOW, "nav.plan").inputs
    assert isinstance(level.source, LogSource)
    assert isinstance(named.source, LogSource)
    assert (level.source.level, level.source.node) == ("warn", "nav.look")
    assert (named.source.level, named.source.node) == (None, "nav.look")
    assert everything.source == LogSource()


def test_operators_in_a_module(project: Project) -> None:
    project.write(
        "modules/nav.yml",
        """
        module: {name: m, inputs: [image], inputs_optional: [map], outputs: [speed, goal]}
        build: make module
        nodes:
          - id: ops
            operators:
              - {id: see, python: see.py, inputs: {i: _mod/image, m: _mod/map}, outputs: [goal]}
              - {id: go, python: {source: go.py}, inputs: {g: ops/see/goal}, outputs: [x], build: b}
          - {id: one, operator: {python: ../one.py, inputs: {x: ops/go/x}, outputs: [speed]}}
        """,
    )
    flow = project.flow(FLOW.rstrip() + "\n  - {id: s, path: s.py, inputs: {g: nav/goal}}\n")
    see, go = flow.node("nav.ops").operators
    assert [(found.id, found.source) for found in see.inputs] == [
        ("i", NodeOutput("camera", "image"))
    ]
    assert (see.source, go.source) == ("modules/see.py", "modules/go.py")
    assert (see.build, go.build) == (("make module",), ("b",))
    assert go.inputs[0].source == NodeOutput("nav.ops", "see/goal")
    assert flow.node("nav.one").operators[0].source == "one.py"
    assert flow.node("nav.one").operators[0].inputs[0].source == NodeOutput("nav.ops", "go/x")
    assert flow.node("wheels").inputs[0].source == NodeOutput("nav.one", "op/speed")
    assert flow.node("s").inputs[0].source == NodeOutput("nav.ops", "see/goal")


def test_flat_yaml_is_the_same_dataflow_without_its_modules(nav: Project) -> None:
    first = nav.flow(_use("params: {A: $X 'y'}\n    env: {B: $X}"), X="$z")
    text = flat_yaml(first)
    for file in (nav.folder / "modules").iterdir():
        file.unlink()
    again = parse(text, path=first.path, environ={})
    assert again == first
    assert again.descriptor == first.descriptor


def test_a_descriptor_needs_no_files(nav: Project) -> None:
    first = nav.flow(FLOW)
    for file in (nav.folder / "modules").iterdir():
        file.unlink()
    wire = json.loads(json.dumps(first.descriptor))
    assert from_descriptor(wire, path=first.path) == first


def test_a_descriptor_cannot_have_modules(nav: Project) -> None:
    nav.write("flow.yml", FLOW)
    nodes = [{"id": "nav", "module": "modules/nav.yml"}]
    with pytest.raises(DataflowError, match="a module cannot be used here, only its nodes"):
        from_descriptor({"nodes": nodes}, path=nav.folder / "flow.yml")


def test_variables_of_the_loader_are_not_inherited(nav: Project) -> None:
    flow = nav.flow(_use("env: {LD_PRELOAD: x, A: 1}"))
    assert flow.node("nav.look").own_env == {"A": "1"}
    assert [warning.line for warning in flow.warnings] == [8]


def test_a_node_of_the_dataflow_can_be_named_in_a_module_with_a_warning(project: Project) -> None:
    inputs = "goal: look/goal, raw: camera/image, log: dora/logs/info/camera"
    project.write("modules/nav.yml", NAV.replace("goal: look/goal", inputs))
    flow = project.flow(FLOW)
    _, raw, log, _ = flow.node("nav.plan").inputs
    assert raw.source == NodeOutput("camera", "image")
    assert log.source.text == "dora/logs/info/camera"
    assert [str(warning) for warning in flow.warnings] == [
        f"modules/nav.yml:13:{column}: nodes[1].inputs.{name}: `camera` is a node of the dataflow,"
        " not of the module (receive its output through an input port, so that the module"
        " can be reused; used by `nav` in flow.yml:5)"
        for column, name in ((31, "raw"), (50, "log"))
    ]


def test_a_node_of_the_module_shadows_one_of_the_dataflow(project: Project) -> None:
    project.write("modules/nav.yml", NAV.replace("look", "camera").replace("goal", "image"))
    flow = project.flow(FLOW)
    assert flow.node("nav.plan").inputs[0].source == NodeOutput("nav.camera", "image")
    assert flow.warnings == ()


def test_modules_differ_from_nodes_in_drawings(nav: Project) -> None:
    (use,) = nav.flow(FLOW).modules
    assert (use.id, use.name, use.file) == ("nav", "navigation", "modules/nav.yml")
