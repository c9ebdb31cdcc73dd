"""Checks of data against declared types, in running dataflows and in isolation."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from dorad.dataflow.load import parse
from dorad.dataflow.types.runtime import port_types
from dorad.node.typecheck import Setting, parse_setting
from dorad.node.typeshapes import Mismatch, Shapes
from tests.harness.dataflow import PROBE, Flow, dora_run
from tests.harness.flows import logged

VECTOR = pa.struct([(axis, pa.float64()) for axis in "xyz"])


def shapes(urn: str, **own: Any) -> Shapes:
    """The shapes of an output of this type, as a node gets them."""
    text = yaml.safe_dump(
        {
            "types": own.get("types", {}),
            "nodes": [
                {"id": "a", "path": "a", "outputs": ["o"], "output_types": {"o": urn}},
            ],
        }
    )
    flow = parse(text, path=Path("flow.yml"))
    types = port_types(flow, flow.nodes[0])
    assert types is not None
    return Shapes(types["outputs"]["o"]["accepts"])


# -- what is checked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urn", "data"),
    [
        ("std/core/v1/Float32", pa.array([1.0], pa.float32())),
        ("std/core/v1/Float32", np.zeros(3, np.float32)),
        ("std/core/v1/String", pa.array(["a"])),
        ("std/core/v1/String", pa.array(["a"], pa.large_string())),
        ("std/core/v1/Bytes", b"bytes"),
        ("std/core/v1/Bytes", pa.array([b"bytes"])),
        ("std/media/v1/CompressedImage", np.zeros(3, np.uint8)),
        ("std/core/v1/Bool", pa.array([True, None])),
        ("std/math/v1/Vector3", pa.array([{"x": 1.0, "y": 2.0, "z": 3.0}])),
        ("std/math/v1/Vector3", pa.array([{"z": 1.0, "y": 2.0, "x": 3.0}])),
        (
            "std/math/v1/Pose[frame=map]",
            pa.array(
                [],
                pa.struct(
                    [
                        ("position", VECTOR),
                        ("orientation", pa.struct([(axis, pa.float64()) for axis in "xyzw"])),
                    ]
                ),
            ),
        ),
        (
            "std/vision/v1/Detection",
            pa.array(
                [],
                pa.struct(
                    [
                        (
                            "boxes",
                            pa.list_(
                                pa.struct(
                                    [
                                        *(
                                            (name, pa.float32())
                                            for name in ("x", "y", "width", "height", "confidence")
                                        ),
                                        ("label", pa.string()),
                                    ]
                                )
                            ),
                        )
                    ]
                ),
            ),
        ),
    ],
)
def test_data_of_the_type_passes(urn: str, data: Any) -> None:
    assert shapes(urn).mismatch(data) is None


@pytest.mark.parametrize(
    ("urn", "data", "found"),
    [
        ("std/core/v1/Float32", pa.array([1.0]), ("", "Float32", "Float64")),
        ("std/core/v1/UInt8", pa.array([b"x"]), ("", "UInt8", "Binary")),
        ("std/core/v1/UInt64", pa.nulls(0), ("", "UInt64", "Null")),
        ("std/core/v1/Bytes", pa.array(["x"]), ("", "LargeBinary", "Utf8")),
        ("std/math/v1/Vector3", pa.array([1.0]), ("", "Struct", "Float64")),
        ("std/math/v1/Vector3", pa.array([{"x": 1.0, "z": 3.0}]), ("y", "Float64", "no field")),
        (
            "std/math/v1/Vector3",
            pa.array([{"x": 1.0, "y": 2.0, "z": 3.0, "w": 4.0}]),
            ("w", "no field", "Float64"),
        ),
        (
            "std/media/v1/Image",
            pa.array([{"width": 1, "height": 2, "encoding": "rgb8", "data": b""}]),
            ("width", "UInt32", "Int64"),
        ),
        (
            "std/control/v1/Twist",
            pa.array([], pa.struct([
                ("linear", VECTOR), ("angular", pa.struct([("x", pa.float32())])),
            ])),
            ("angular.x", "Float64", "Float32"),
        ),
        (
            "std/control/v1/JointState",
            pa.array([{"names": ["a"], "positions": [1]}]),
            ("positions[]", "Float64", "Int64"),
        ),
        (
            "std/vision/v1/Detection",
            pa.array([{"boxes": [{"x": "left"}]}]),
            ("boxes[].x", "Float32", "Utf8"),
        ),
        ("std/vision/v1/Detection", pa.array([{"boxes": 1}]), ("boxes", "List<Struct>", "Int64")),
    ],
)  # fmt: skip
def test_a_mismatch_names_field_expected_and_found(
    urn: str, data: Any, found: tuple[str, str, str]
) -> None:
    assert shapes(urn).mismatch(data) == Mismatch(*found)


def test_a_field_that_is_not_nullable_has_no_nulls() -> None:
    own = {
        "my/v1/T": {
            "arrow": "Struct",
            "fields": [{"name": "l", "type": "List<my/v1/U>"}],
        },
        "my/v1/U": {
            "arrow": "Struct",
            "fields": [{"name": "s", "type": "Utf8", "nullable": False}],
        },
    }
    checked = shapes("my/v1/T", types=own)
    assert checked.mismatch(pa.array([{"l": [{"s": "a"}]}])) is None
    wrong = pa.array([{"l": [{"s": "a"}]}, {"l": [{"s": None}]}])
    assert checked.mismatch(wrong) == Mismatch("l[].s", "no nulls", "nulls")
    assert checked.mismatch(wrong[:1]) is None


def test_an_input_accepts_what_converts_to_its_type() -> None:
    text = """
        type_rules: [{from: std/core/v1/Float64, to: std/core/v1/Float32}]
        nodes:
          - id: a
            path: a
            outputs: [o, plain]
            output_types: {o: std/core/v1/Float64}
          - id: b
            path: b
            inputs: {i: a/o, j: a/plain, any: a/o, tick: dora/timer/secs/1, own: a/o}
            input_types:
              i: std/core/v1/Float32
              j: std/core/v1/Float32
              any: std/core/v1/Bytes
              tick: std/core/v1/UInt64
              own: nobody/knows/v1/It
        """
    flow = parse(text, path=Path("flow.yml"))
    types = port_types(flow, flow.nodes[1])
    assert types == {
        "inputs": {
            "i": {
                "type": "std/core/v1/Float32",
                "accepts": ["Float32", "Float64"],
                "from": "a/o",
            },
            "j": {"type": "std/core/v1/Float32", "accepts": ["Float32"], "from": "a/plain"},
        },
        "outputs": {},
    }
    checked = Shapes(types["inputs"]["i"]["accepts"])
    assert checked.mismatch(pa.array([1.0])) is None
    assert checked.mismatch(pa.array([1])) == Mismatch("", "Float32 or Float64", "Int64")


# -- the environment variable ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("", Setting()),
        ("0", Setting()),
        ("1", Setting(outputs=True)),
        ("true", Setting(outputs=True)),
        ("WARN, first", Setting(outputs=True, first=True)),
        ("error", Setting(outputs=True, error=True)),
        ("error,every,patterns", Setting(True, True, False, True, True)),
        ("every", Setting(every_input=True)),
    ],
)
def test_the_variable_takes_words(text: str, setting: Setting) -> None:
    assert parse_setting(text) == setting


@pytest.mark.parametrize("text", ["eror", "warn first", "first,every"])
def test_unknown_words_in_the_variable_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"DORA_RUNTIME_TYPE_CHECK={text}: `")):
        parse_setting(text)


# -- in a dataflow ---------------------------------------------------------------------------------

SENDER = """
    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    for number, data in enumerate(DATA):
        try:
            node.send_output("out", data, META)
            report("sent")
        except RuntimeError as error:
            report(str(error))
"""
SINK = """
    from dora import Node
    from probe import report

    for event in Node():
        if event["type"] == "INPUT" and event["id"] == "in":
            report(str(event["value"].type))
"""
VALUES = "[pa.array([1.0]), pa.array([1]), pa.array([1]), pa.array(['x'])]"
WARNING = r"type mismatch: source/out -> sink/in: not std/core/v1/Float64: expected Float64, found "


def typed(flow: Flow, check: str, *, data: str = VALUES, meta: str = "None", **keys: Any) -> Flow:
    source = SENDER.replace("DATA", data).replace("META", meta)
    flow.node("source", source, outputs=["out"], env={"DORA_RUNTIME_TYPE_CHECK": check})
    flow.nodes[-1]["output_types"] = {"out": "std/core/v1/Float64"}
    inputs = {"in": {"source": "source/out", "queue_size": 100}, "tick": "dora/timer/millis/20"}
    flow.node("sink", SINK, inputs=inputs, env={"DORA_RUNTIME_TYPE_CHECK": keys.get("sink", "")})
    flow.nodes[-1]["input_types"] = {
        "in": keys.get("expects", "std/core/v1/Bytes"),
        "tick": "std/core/v1/UInt64",
    }
    return flow


def warned(flow: Flow, node: str) -> list[str]:
    """The mismatches in the log lines of a node."""
    return [re.sub(WARNING, "", line) for line in logged(flow.folder, node)]


def run(flow: Flow) -> None:
    (flow.folder / "probe.py").write_text(PROBE.lstrip(), encoding="utf-8")
    file = flow.folder / "dataflow.yml"
    content = {"nodes": flow.nodes, "exit_when_nodes_finish": True}
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    dora_run(file).expect(0)


def test_by_default_outputs_and_untyped_inputs_and_ticks_are_not_checked(
    flow: Flow,
) -> None:
    run(typed(flow, ""))
    assert flow.reports("source") == ["sent"] * 4
    assert warned(flow, "source") == warned(flow, "sink") == []


def test_a_sender_in_warn_mode_warns_once_per_problem_and_sends(flow: Flow) -> None:
    run(typed(flow, "1"))
    assert flow.reports("sink") == ["double", "int64", "int64", "string"]
    assert warned(flow, "source") == ["Int64", "Utf8"]


def test_a_sender_with_errors_does_not_send(flow: Flow) -> None:
    run(typed(flow, "error"))
    found = flow.reports("source")
    assert found[0] == "sent"
    assert [re.sub(WARNING, "", text) for text in found[1:]] == ["Int64", "Int64", "Utf8"]
    assert flow.reports("sink") == ["double"]


def test_mode_first_checks_only_the_first_message(flow: Flow) -> None:
    run(typed(flow, "error,first", data="[pa.array([1]), pa.array([1.0]), pa.array([2])]"))
    assert [text == "sent" for text in flow.reports("source")] == [False, True, True]


@pytest.mark.parametrize("key", ["request_id", "goal_id", "goal_status"])
def test_messages_of_services_and_actions_are_checked_only_on_request(flow: Flow, key: str) -> None:
    expects = {"expects": "std/core/v1/Float64", "data": "[pa.array([1])]"}
    run(typed(flow, "error", meta=f"{{'{key}': 'x'}}", **expects))
    assert flow.reports("source") == ["sent"]
    assert warned(flow, "sink") == []


def test_the_word_patterns_includes_them(flow: Flow) -> None:
    run(typed(flow, "error,patterns", meta="{'request_id': 'x'}", data="[pa.array([1])]"))
    assert flow.reports("source") != ["sent"]


def test_a_receiver_always_checks_the_first_message(flow: Flow) -> None:
    data = "[pa.array([1]), pa.array(['x'])]"
    run(typed(flow, "", data=data, expects="std/core/v1/Float64"))
    assert warned(flow, "sink") == ["Int64"]
    assert flow.reports("sink") == ["int64", "string"]


def test_a_receiver_checks_every_message_if_asked_to(flow: Flow) -> None:
    run(typed(flow, "", sink="every", expects="std/core/v1/Float64"))
    assert warned(flow, "sink") == ["Int64", "Utf8"]


def test_a_raw_buffer_is_bytes(flow: Flow) -> None:
    source = """
        from dora import Node
        from probe import report

        node = Node()
        try:
            with node.send_output_raw("out", 8) as buffer:
                buffer[:] = bytes(8)
        except RuntimeError as error:
            report(str(error))
        array = node.empty(8, "float64")
        array[:] = 1
        node.send_output("out", array)
    """
    typed(flow, "")
    flow.node("source", source, outputs=["out"], env={"DORA_RUNTIME_TYPE_CHECK": "error"})
    flow.nodes[-1]["output_types"] = {"out": "std/core/v1/Float64"}
    del flow.nodes[0]
    run(flow)
    (reported,) = flow.reports("source")
    assert re.sub(WARNING, "", reported) == "UInt8"
    assert flow.reports("sink") == ["double"]


def test_an_unknown_setting_is_an_error_of_the_node(flow: Flow) -> None:
    flow.node(
        "alone", "from dora import Node\nNode()", env={"DORA_RUNTIME_TYPE_CHECK": "eror"},
        outputs=["o"],
    )  # fmt: skip
    flow.nodes[-1]["output_types"] = {"o": "std/core/v1/Float64"}
    outcome = flow.run()
    outcome.expect(1)
    assert "DORA_RUNTIME_TYPE_CHECK=eror: `eror` is not understood" in outcome.output


def test_a_node_without_types_does_not_import_the_checks(flow: Flow) -> None:
    flow.node(
        "plain",
        """
        import sys
        from dora import Node
        from probe import report

        Node()
        report([name for name in sys.modules if name.startswith("dorad.node.type")])
        """,
        env={"DORA_RUNTIME_TYPE_CHECK": "error"},
        outputs=["o"],
    )
    flow.run().expect(0)
    assert flow.reports("plain") == [[]]
