"""A dataflow that is built, written and read again is the same dataflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dora.builder import DataflowBuilder, Node, Operator, Output
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from dorad.dataflow.expand import flat_yaml
from dorad.dataflow.load import from_descriptor, parse
from dorad.dataflow.model import Input, NodeOutput, QueuePolicy, Sync
from tests.dataflow.reading import unhurried

FILE = Path("flow.yml")

ids = st.text("abcXYZ019_-", min_size=1, max_size=6)
hard = st.sampled_from(
    [
        "yes",
        "No",
        "1e3",
        "0o17",
        "1_000",
        "~",
        "null",
        "1.10",
        "007",
        "",
        " x ",
        "#",
        "a: b",
        "'",
        '"',
    ]
)
texts = hard | st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co"), exclude_characters="$\ufeff")
)
seconds = st.floats(0, 1e6)
scalars = texts | st.integers(-(2**62), 2**62) | st.booleans() | st.floats(-1e9, 1e9)


@st.composite
def input_options(draw: DrawFn) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["queue_policy"] = draw(st.sampled_from(["drop_oldest", "latest"]))
    if draw(st.booleans()):
        latest = options.get("queue_policy") == "latest"
        options["queue_size"] = 1 if latest else draw(st.integers(1, 100))
    if draw(st.booleans()):
        options["input_timeout"] = draw(seconds)
    if draw(st.booleans()):
        options["latched"] = draw(st.booleans())
    if draw(st.booleans()):
        options["max_rate_hz"] = draw(st.floats(0.01, 1000) | st.integers(1, 100))
    return options


def optional(strategies: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=strategies)


node_keys = optional(
    {
        "name": texts,
        "description": texts,
        "env": st.dictionaries(st.text("ABC_", min_size=1, max_size=4), scalars, max_size=3),
        "params": st.dictionaries(ids, scalars, max_size=2),
        "restart_policy": st.sampled_from(["never", "on-failure", "always"]),
        "max_restarts": st.integers(0, 9),
        "restart_delay": seconds,
        "health_check_timeout": seconds,
        "startup_timeout": seconds,
        "cpu_affinity": st.sets(st.integers(0, 7)).map(sorted).map(tuple),
        "spin_us": st.integers(0, 1000),
        "shared_memory_pool_size": st.integers(0, 2**40) | st.just("64MB"),
        "min_log_level": st.sampled_from(["info", "warn", "stdout"]),
        "max_log_size": st.just("1MB") | st.integers(1, 2**30),
        "resources": optional({"memory_max": st.just("1GB"), "cpu_quota": st.just("50%")}),
        "realtime": optional({"lock_memory": st.booleans()}),
        "deploy": optional(
            {
                "machine": ids,
                "needs": optional({"cpu": st.floats(0, 8), "devices": st.just(["/dev/video0"])}),
                "avoid": optional({"nodes": st.lists(ids, unique=True)}),
            }
        ),
    }
)
flow_keys = optional(
    {
        "env": st.dictionaries(st.text("ABC_", min_size=1, max_size=4), scalars, max_size=3),
        "exit_when_nodes_finish": st.booleans(),
        "health_check_interval": st.floats(0.1, 100),
    }
)


def fill(draw: DrawFn, target: Node | Operator, sources: list[Output]) -> None:
    for name in draw(st.lists(ids, max_size=3, unique=True)):
        if sources and draw(st.booleans()):
            target.add_input(name, draw(st.sampled_from(sources)), **draw(input_options()))
        else:
            target.add_input(name, "dora/timer/millis/20", draw(st.integers(1, 9)))
    sources += [target.add_output(name) for name in draw(st.lists(ids, max_size=3))]


@st.composite
def flows(draw: DrawFn) -> DataflowBuilder:
    flow = DataflowBuilder(**draw(flow_keys))
    sources: list[Output] = []
    for name in draw(st.lists(ids.filter(lambda x: x != "dora"), max_size=4, unique=True)):
        if draw(st.integers(0, 3)):
            node = flow.add_node(name, path=Path(f"{name}.py"), **draw(node_keys))
            fill(draw, node, sources)
            continue
        runtime = flow.add_node(name)
        others = list(sources)
        for each in draw(st.lists(ids, min_size=1, max_size=2, unique=True)):
            operator = Operator(each, python=f"{each}.py", description=draw(texts) or None)
            # Those of one node hand on everything: options are for the outputs of others.
            known = list(others)
            fill(draw, operator, known)
            sources += known[len(others) :]
            runtime.add_operator(operator)
    return flow


@unhurried
@given(flows())
def test_a_written_dataflow_is_read_back(flow: DataflowBuilder) -> None:
    read = parse(flow.to_yaml(), path=FILE, environ={})
    made = from_descriptor(flow.to_dict(), path=FILE)
    assert read == made
    again = parse(flat_yaml(read), path=FILE, environ={})
    assert again == read


def test_operators_can_be_wired_before_they_have_a_node() -> None:
    flow = DataflowBuilder()
    camera = flow.add_node("camera", path="camera.py").add_output("image")
    detect = Operator("detect", python="detect.py", conda_env="vision")
    boxes = detect.add_input("image", camera, queue_policy="latest").add_output("boxes")
    draw = Operator("draw", python="draw.py", inputs={"boxes": boxes}, outputs=["picture"])
    with pytest.raises(ValueError, match="the operator 'detect' was not added to a node"):
        str(boxes)
    flow.add_node("vision").add_operator(detect).add_operator(draw)
    flow.add_node("sink", path="sink.py", inputs={"boxes": {"source": boxes, "latched": True}})
    dataflow = parse(flow.to_yaml(), path=FILE, environ={})
    first, second = dataflow.node("vision").operators
    source = NodeOutput("camera", "image")
    assert first.conda_env == "vision"
    assert first.inputs == (Input("image", source, 1, QueuePolicy.LATEST, long_form=True),)
    assert second.inputs[0].source == NodeOutput("vision", "detect/boxes")
    assert second.outputs == ("picture",)
    assert dataflow.node("sink").inputs[0].latched
    with pytest.raises(ValueError, match="was added to another node"):
        flow.add_node("other").add_operator(detect)


def test_everything_an_input_can_have() -> None:
    node = Node("b").add_input(
        "x", "a/x", 5, QueuePolicy.DROP_OLDEST, input_timeout=0.5, latched=True, max_rate_hz=2.5
    )
    assert node.to_dict()["inputs"] == {
        "x": {
            "source": "a/x",
            "queue_size": 5,
            "queue_policy": "drop_oldest",
            "input_timeout": 0.5,
            "latched": True,
            "max_rate_hz": 2.5,
        }
    }


def test_inputs_can_be_synchronised() -> None:
    flow = DataflowBuilder()
    rig = flow.add_node("rig", path="rig.py", outputs=["left", "right", "depth", "colour"])
    node = flow.add_node("stereo", path="stereo.py")
    for name in ("left", "right", "depth", "colour"):
        node.add_input(name, f"{rig.id}/{name}")
    node.sync(["left", "right"], 5).sync(("depth", "colour"), tolerance_ms=0.5, name="rgbd")
    assert parse(flow.to_yaml(), path=FILE, environ={}).node("stereo").sync == (
        Sync("sync", ("left", "right"), 5_000_000),
        Sync("rgbd", ("depth", "colour"), 500_000),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"queue_policy": "latest", "queue_size": 2}, "must be 1 with queue_policy latest, got 2"),
        ({"input_timeout": -1.0}, "input_timeout must be 0 or more seconds, got -1.0"),
        ({"input_timeout": float("nan")}, "input_timeout must be 0 or more seconds, got nan"),
        ({"max_rate_hz": 0}, "max_rate_hz must be above 0, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Node("b").add_input("x", "a/x", **options)


def test_a_value_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(TypeError, match="a dataflow file cannot hold <object"):
        DataflowBuilder(env={"X": object()}).to_yaml()
