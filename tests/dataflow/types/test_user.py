"""The user's own types: their files, errors in them, and the descriptor."""

import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.expand import flat_yaml
from dorad.dataflow.load import from_descriptor, load, parse
from dorad.dataflow.types.definitions import plain_definition
from dorad.dataflow.types.model import (
    Field,
    ListOf,
    MetadataKey,
    Named,
    Param,
    Scalar,
    Struct,
    TypeDef,
)
from dorad.dataflow.types.runtime import port_types
from dorad.dataflow.types.user import read_user_types

JOINT = """
    types:
      Joint:
        arrow: Struct
        description: one joint
        params: [{name: unit, default: rad}]
        fields:
          - {name: angle, type: Float64, nullable: false}
          - {name: place, type: Vector3}
          - {name: names, type: List<Utf8>, description: what people call it}
          - {name: path, type: "List<std/math/v1/Pose>"}
        metadata: [{key: frame, type: Utf8, required: true, description: of the place}]
      Speed: {arrow: Float32}
      Path: {arrow: List<Joint>}
    """


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")


def types(folder: Path, **files: str) -> dict[str, TypeDef]:
    write(folder, {f"types/{name.replace('__', '/')}.yml": text for name, text in files.items()})
    return {found.urn: found for found in read_user_types(folder)}


def wrong(folder: Path, text: str) -> list[str]:
    """Return the errors of the file acme/v1.yml, without its path."""
    with pytest.raises(DataflowError) as caught:
        types(folder, acme__v1=text)
    return [
        str(problem).removeprefix(f"{folder}/types/acme/v1.yml:")
        for problem in caught.value.problems
    ]


def test_the_path_of_a_file_is_the_prefix_of_its_types(tmp_path: Path) -> None:
    found = types(tmp_path, acme__arm__v1=JOINT, other__v1="types: {T: {arrow: Boolean}}")
    assert sorted(found) == [
        "acme/arm/v1/Joint",
        "acme/arm/v1/Path",
        "acme/arm/v1/Speed",
        "other/v1/T",
    ]


def test_a_definition_is_read_whole(tmp_path: Path) -> None:
    found = types(tmp_path, acme__arm__v1=JOINT)
    joint = found["acme/arm/v1/Joint"]
    assert joint.shape == Struct(
        (
            Field("angle", Scalar("Float64"), nullable=False),
            Field("place", Named("std/math/v1/Vector3")),
            Field("names", ListOf(Scalar("Utf8")), description="what people call it"),
            Field("path", ListOf(Named("std/math/v1/Pose"))),
        )
    )
    assert joint.description == "one joint"
    assert joint.params == (Param("unit", "rad"),)
    assert joint.metadata == (MetadataKey("frame", "Utf8", True, "of the place"),)
    assert found["acme/arm/v1/Speed"].shape == Scalar("Float32")
    assert found["acme/arm/v1/Path"].shape == ListOf(Named("acme/arm/v1/Joint"))


def test_no_folder_means_no_types(tmp_path: Path) -> None:
    assert read_user_types(tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "types: {T: {arrow: Flaot32}}",
            "1:20: types.T.arrow: there is no type `Flaot32` (did you mean `Float32`?)",
        ),
        (
            "types: {T: {description: x}}",
            "1:9: types.T: needs `arrow` (such as `Struct`, `Float32` or `List<Utf8>`)",
        ),
        (
            "types: {T: }",
            "1:9: types.T: needs `arrow` (such as `Struct`, `Float32` or `List<Utf8>`)",
        ),
        ("types: {T: Float32}", "1:12: types.T: must be a mapping with `arrow`, not `Float32`"),
        (
            "types: [T]",
            (
                "1:8: types: must be a mapping, not a list "
                "(give each entry a name, as in `types: {name: ...}`)"
            ),
        ),
        ("type: {}", "1:1: type: unknown key `type` (did you mean `types`?)"),
        ("a: 1\n", "1:1: a: unknown key `a` (known here: types)"),
        (
            "types: {T: {arow: Float32}}",
            "1:13: types.T.arow: unknown key `arow` (did you mean `arrow`?)",
        ),
        (
            "types: {1T: {arrow: Float32}}",
            (
                "1:9: types.1T: `1T` is not a valid type name "
                "(use letters, digits and `_`, not starting with a digit)"
            ),
        ),
        *(
            (
                f"types: {{T: {{arrow: Struct, {key}: [{{{entry}}}, {{{entry}}}]}}}}",
                (
                    f"1:{column}: types.T.{key}[1].{entry.partition(':')[0]}: another {what} is "
                    "called `a`, in line 1 (remove one, or give it another name)"
                ),
            )
            for key, entry, what, column in (
                ("params", "name: a", "parameter", 55),
                ("metadata", "key: a", "metadata key", 55),
                ("fields", "name: a, type: Int8", "field", 67),
            )
        ),
        (
            "types: {T: {arrow: List}}",
            (
                "1:20: types.T.arrow: `List` does not name the type of its items "
                "(write the type of its items: `List<Float32>`)"
            ),
        ),
        (
            "types: {T: {arrow: Pose}}",
            (
                "1:20: types.T.arrow: `Pose` is not an Arrow type "
                "(write `Struct`; other types go into fields)"
            ),
        ),
        (
            "types: {T: {arrow: Float32, fields: []}}",
            "1:29: types.T.fields: only a struct has fields, not Float32 (`arrow: Struct`)",
        ),
        (
            "types: {T: {arrow: Struct, fields: [{name: a}]}}",
            (
                "1:37: types.T.fields[0]: needs `type` "
                "(such as `Float32`, `List<Utf8>` or another type)"
            ),
        ),
        (
            "types: {T: {arrow: Struct, fields: [{name: a, type: Pos}]}}",
            (
                "1:53: types.T.fields[0].type: there is no type `Pos` "
                "(did you mean `std/math/v1/Pose`?)"
            ),
        ),
        (
            "types: {T: {arrow: Struct, fields: [{name: a, type: List<Pose}]}}",
            (
                "1:53: types.T.fields[0].type: `List<Pose` is not a valid list "
                "(write the type of its items: `List<Float32>`)"
            ),
        ),
        (
            "types: {T: {arrow: Struct, fields: [{name: a, type: Utf8, nullable: maybe}]}}",
            "1:69: types.T.fields[0].nullable: must be true or false, not `maybe`",
        ),
        (
            "types: {Pose: {arrow: Utf8}, T: {arrow: Struct, fields: [{name: a, type: Pose}]}}",
            (
                "1:74: types.T.fields[0].type: there are several types `Pose` "
                "(write std/math/v1/Pose or acme/v1/Pose)"
            ),
        ),
        (
            "types: {T: {arrow: Struct, fields: [{name: a, type: T}]}}",
            (
                "1:53: types.T.fields[0].type: contains itself: acme/v1/T -> acme/v1/T "
                "(a message would be infinite)"
            ),
        ),
        (
            "types: {T: {arrow: List<T>}}",
            (
                "1:20: types.T.arrow: contains itself: acme/v1/T -> acme/v1/T "
                "(a message would be infinite)"
            ),
        ),
    ],
)
def test_errors_are_reported_with_line_and_column(tmp_path: Path, text: str, expected: str) -> None:
    found = wrong(tmp_path, text)
    assert expected in found
    assert len(found) <= 2, found  # a misspelt key may also be missed


def test_a_cycle_of_types_is_reported_once(tmp_path: Path) -> None:
    text = """
        types:
          A:
            arrow: Struct
            fields: [{name: b, type: List<B>}]
          B:
            arrow: Struct
            fields: [{name: c, type: C}]
          C:
            arrow: Struct
            fields: [{name: a, type: A}]
          D:
            arrow: Struct
            fields: [{name: a, type: A}]
        """
    (reported,) = wrong(tmp_path, text)
    assert reported.startswith("4:30: types.A.fields[0].type: contains itself: acme/v1/A -> ")


def test_types_above_the_size_limit_are_refused(tmp_path: Path) -> None:
    doubled = ["types:", "  T0: {arrow: Float32}"]
    chained = ["types:", "  T0: {arrow: Float32}"]
    for n in range(1, 40):
        two = f"[{{name: a, type: T{n - 1}}}, {{name: b, type: T{n - 1}}}]"
        doubled.append(f"  T{n}: {{arrow: Struct, fields: {two}}}")
        chained.append(f"  T{n}: {{arrow: List<T{n - 1}>}}")
    reported = wrong(tmp_path, "\n".join(doubled))
    assert (
        reported[0] == "14:3: types.T12: has more than 10000 fields, including those of its parts"
    )
    assert 1 < len(reported) < 4
    assert wrong(tmp_path, "\n".join(chained)) == ["34:3: types.T32: is more than 32 types deep"]


def test_what_is_no_file_among_the_types_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path, {"types/acme/good.yml": "types: {}"})
    os.mkfifo(tmp_path / "types" / "acme" / "pipe.yml")
    (tmp_path / "types" / "acme" / "zero.yml").symlink_to("/dev/zero")
    (tmp_path / "types" / "acme" / "own.yml").symlink_to("/proc/self/fd/0")
    with pytest.raises(DataflowError) as caught:
        read_user_types(tmp_path)
    shown = sorted(map(str, caught.value.problems))
    assert [Path(each.split(":")[0]).name for each in shown] == ["own.yml", "pipe.yml", "zero.yml"]
    assert all("is not a regular file (is it a file of types?)" in each for each in shown)


def test_the_prefix_of_the_standard_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataflowError, match=r"types/std/x/v1.yml:1:1: `std/` is for the standard"):
        types(tmp_path, std__x__v1="types: {T: {arrow: Utf8}}")


def test_errors_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "types/a/v1.yml": "types: {T: {arrow: X}}",
            "types/b/v1.yml": "types:\n  - [",
            "types/c/v1.yml": "",
        },
    )
    (tmp_path / "types/d").mkdir()
    (tmp_path / "types/d/v1.yml").write_bytes(b"\xff")
    with pytest.raises(DataflowError) as caught:
        read_user_types(tmp_path)
    files = [problem.file for problem in caught.value.problems]
    assert files == [str(tmp_path / f"types/{name}/v1.yml") for name in "abcd"]


# -- in a dataflow ---------------------------------------------------------------------------------

FLOW = """
    nodes:
      - {id: a, path: a, outputs: [o], output_types: {o: acme/arm/v1/Joint}}
    """


def test_the_types_travel_with_the_descriptor(tmp_path: Path) -> None:
    write(tmp_path, {"types/acme/arm/v1.yml": JOINT, "flow.yml": FLOW})
    flow = load(tmp_path / "flow.yml")
    assert [found.urn for found in flow.own_types] == [
        "acme/arm/v1/Joint",
        "acme/arm/v1/Path",
        "acme/arm/v1/Speed",
    ]
    elsewhere = from_descriptor(flow.descriptor, path=tmp_path / "elsewhere" / "flow.yml")
    assert elsewhere.own_types == flow.own_types
    assert port_types(elsewhere, elsewhere.nodes[0]) == port_types(flow, flow.nodes[0])
    flat = parse(flat_yaml(flow), path=tmp_path / "elsewhere" / "flow.yml")
    assert (flat.own_types, flat.descriptor) == (flow.own_types, flow.descriptor)


def test_the_file_of_a_dataflow_without_types_is_unchanged(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"types/acme/arm/v1.yml": JOINT, "flow.yml": "nodes: [{id: a, path: a, outputs: [o]}]"},
    )
    flow = load(tmp_path / "flow.yml")
    assert "types" not in flow.descriptor
    assert flow.own_types == ()


def test_types_defined_in_a_dataflow_override_others(tmp_path: Path) -> None:
    own = f"types: {{acme/arm/v1/Speed: {{arrow: Float64}}}}\n{dedent(FLOW)}"
    write(tmp_path, {"types/acme/arm/v1.yml": JOINT, "flow.yml": own})
    flow = load(tmp_path / "flow.yml")
    shapes = {found.urn: found.shape for found in flow.own_types}
    assert shapes["acme/arm/v1/Speed"] == Scalar("Float64")
    assert "acme/arm/v1/Joint" in shapes


def test_errors_of_types_in_a_dataflow_are_reported_with_line_and_column(tmp_path: Path) -> None:
    text = "types: {T: {arrow: Utf8}, std/x/v1/T: {arrow: Utf8}, a/v1/T: {arrow: X}}\nnodes: []\n"
    with pytest.raises(DataflowError) as caught:
        parse(text, path=tmp_path / "flow.yml")
    assert [(found.column, found.message) for found in caught.value.problems] == [
        (9, "`T` has no prefix"),
        (27, "`std/` is for the standard library"),
        (70, "there is no type `X`"),
    ]


def test_a_printed_definition_is_read_back(tmp_path: Path) -> None:
    found = types(tmp_path, acme__arm__v1=JOINT)
    written = {urn: plain_definition(definition) for urn, definition in found.items()}
    again = from_descriptor({"types": written, "nodes": []}, path=tmp_path / "flow.yml")
    assert {each.urn: each for each in again.own_types} == found
