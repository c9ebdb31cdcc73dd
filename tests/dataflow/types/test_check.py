"""Warnings and errors about the types of a dataflow."""

from __future__ import annotations

from dorad.dataflow.types.check import check_types
from dorad.dataflow.types.strict import type_problems
from tests.dataflow.reading import read

EDGE = """
nodes:
  - id: a
    path: a
    outputs: [o, p]
    {a}
  - id: b
    path: b
    inputs: {{i: a/o, t: dora/timer/secs/1, l: dora/logs}}
    {b}
{more}
"""
CORE = "std/core/v1"


def found(a: str = "", b: str = "", more: str = "") -> list[str]:
    """The warnings, without their places."""
    flow = read(EDGE.format(a=a, b=b, more=more))
    return [_text(warning) for warning in check_types(flow).warnings]


def _text(problem: object) -> str:
    return str(problem).partition(": ")[2]


def edge(source: str, target: str, more: str = "") -> list[str]:
    return found(f"output_types: {{o: '{source}'}}", f"input_types: {{i: '{target}'}}", more)


def test_matching_types_give_no_warning() -> None:
    assert edge(f"{CORE}/Float32", f"{CORE}/Float64") == []
    assert edge("std/media/v1/Image", f"{CORE}/Bytes") == []
    assert found() == []


def test_a_mismatch_is_reported_with_the_difference() -> None:
    assert edge("std/math/v1/Pose", "std/math/v1/Vector3") == [
        (
            "nodes[1].input_types.i: `a/o` sends `std/math/v1/Pose`, "
            'but `std/math/v1/Vector3` is expected (it has no field "x")'
        )
    ]
    assert edge(
        "std/media/v1/AudioFrame[sample_type=f32]", "std/media/v1/AudioFrame[sample_type=i16]"
    ) == [
        (
            "nodes[1].input_types.i: `a/o` sends `std/media/v1/AudioFrame[sample_type=f32]`, but "
            "`std/media/v1/AudioFrame[sample_type=i16]` is expected (they differ in `sample_type`)"
        )
    ]


def test_type_rules_of_the_file_are_applied() -> None:
    rule = f"type_rules: [{{from: {CORE}/Float64, to: {CORE}/Float32}}]"
    assert edge(f"{CORE}/Float64", f"{CORE}/Float32") != []
    assert edge(f"{CORE}/Float64", f"{CORE}/Float32", rule) == []


def test_a_rule_for_unknown_types_is_warned_of() -> None:
    assert found(more="type_rules: [{from: std/core/v1/Flaot64, to: my/v1/T}]") == [
        (
            "type_rules[0].from: unknown type `std/core/v1/Flaot64` "
            "(did you mean `std/core/v1/Float64`?)"
        ),
        (
            "type_rules[0].to: unknown type `my/v1/T` "
            "(`types/my/v1.yml` beside the dataflow would define it)"
        ),
    ]


def test_an_unknown_type_is_reported_once_and_its_edge_is_not_checked() -> None:
    unknown = "unknown type `std/media/v1/Imgae` (did you mean `std/media/v1/Image`?)"
    image = "std/media/v1/Image"
    assert edge("std/media/v1/Imgae", image) == [f"nodes[0].output_types.o: {unknown}"]
    assert edge(image, "std/media/v1/Imgae") == [f"nodes[1].input_types.i: {unknown}"]


def test_a_short_name_is_warned_of_with_its_urn() -> None:
    assert edge("Float64", f"{CORE}/Float64") == [
        "nodes[0].output_types.o: unknown type `Float64` (did you mean `std/core/v1/Float64`?)"
    ]


def test_an_invalid_urn_is_reported_with_the_right_form() -> None:
    (reported,) = edge("std/media/v1/Image[encoding", "std/media/v1/Image")
    assert "is not a valid type name (write it as `std/media/v1/Image` or " in reported


def test_a_misspelt_parameter_is_warned_of() -> None:
    assert edge("std/media/v1/AudioFrame[sampel_type=f32]", "std/media/v1/AudioFrame[x=1]") == [
        (
            "nodes[0].output_types.o: `std/media/v1/AudioFrame` has no parameter `sampel_type` "
            "(did you mean `sample_type`?)"
        )
    ]


def test_a_timer_gives_uint64() -> None:
    assert found(b=f"input_types: {{t: {CORE}/UInt64}}") == []
    (text,) = found(b=f"input_types: {{t: {CORE}/Float64}}")
    assert text.startswith("nodes[1].input_types.t: `dora/timer/secs/1` sends `std/core/v1/UInt64`")


def test_an_input_without_a_type_has_that_of_its_source() -> None:
    flow = read(EDGE.format(a=f"output_types: {{o: {CORE}/Bool}}", b="", more=""))
    findings = check_types(flow)
    assert findings.warnings == findings.lacking == ()
    assert [_text(note) for note in findings.inferred] == [
        "nodes[1].inputs.i: has the inferred type `std/core/v1/Bool`, from `a/o`"
    ]


def test_only_strict_types_ask_for_the_type_of_a_source() -> None:
    text = EDGE.format(a="", b=f"input_types: {{i: {CORE}/Bool}}", more="")
    assert check_types(read(text)).warnings == ()
    assert type_problems(read(text)) == ()
    reported = "nodes[1].input_types.i: `std/core/v1/Bool` is expected, but `a/o` has no type"
    for problems in (
        type_problems(read(text), strict=True),
        type_problems(read(f"strict_types: true\n{text}")),
    ):
        (problem,) = problems
        assert _text(problem).startswith(reported)


def test_strict_types_make_unknown_ports_and_patterns_errors() -> None:
    flow = read(
        EDGE.format(
            a="output_types: {x: std/core/v1/Bool}\n    output_metadata: {y: [k]}\n"
            "    pattern: servis\n    output_framing: {z: raw}",
            b="input_types: {nope: std/core/v1/Bool}",
            more="",
        )
    )
    assert len(flow.warnings) == 5
    keys = [problem.key.partition(".")[2] for problem in type_problems(flow, strict=True)]
    assert keys == ["output_types.x", "output_metadata.y", "pattern", "input_types.nope"]


def test_operators_have_types_too() -> None:
    flow = read(
        """
        nodes:
          - id: a
            operator: {python: a, outputs: [o], output_types: {o: std/core/v1/Bool}}
          - id: b
            operators:
              - {id: x, python: b, inputs: {i: a/o}, input_types: {i: std/core/v1/String}}
              - {id: y, python: b, inputs: {i: a/o}}
        """
    )
    findings = check_types(flow)
    assert [warning.key for warning in findings.warnings] == ["nodes[1].operators[0].input_types.i"]
    assert [note.key for note in findings.inferred] == ["nodes[1].operators[1].inputs.i"]


def test_places_are_those_of_the_annotation() -> None:
    flow = read(EDGE.format(a="output_types: {o: x/v1/Y}", b="", more=""))
    (warning,) = check_types(flow).warnings
    assert str(warning).startswith("flow.yml:6:20: nodes[0].output_types.o: unknown type `x/v1/Y`")
