"""`dora types`: the list, one type, the generated module."""

import json
from pathlib import Path

import pytest

from tests.cli.dora import dora
from tests.harness.commands import succeeds

OWN = """\
types:
  Joint:
    arrow: Struct
    description: one joint
    params: [{name: unit, default: rad, description: of the angle}]
    metadata: [{key: frame, type: Utf8, description: where it is}]
    fields:
      - {name: angle, type: Float64, nullable: false}
      - {name: place, type: Vector3}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "types" / "acme").mkdir(parents=True)
    (tmp_path / "types" / "acme" / "v1.yml").write_text(OWN)
    (tmp_path / "dataflow.yml").write_text("types: {my/v1/Level: {arrow: Int8}}\nnodes: []\n")
    return tmp_path


def test_the_list_has_a_row_for_each_type(tmp_path: Path) -> None:
    lines = dora("types", "list", cwd=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["Type", "Arrow", "Parts", "Description"]
    assert len(lines) == 28
    (image,) = (line for line in lines if line.startswith("std/media/v1/Image "))
    assert "width, height, encoding, data" in image


def test_types_of_the_user_are_listed_too(project: Path) -> None:
    for words in ((), ("dataflow.yml",)):
        found = json.loads(dora("types", "list", "--json", *words, cwd=project).stdout)
        assert [each["urn"] for each in found[27:]] == ["acme/v1/Joint", "my/v1/Level"]
    found = json.loads(dora("types", "list", "--json", f"{project}/dataflow.yml").stdout)
    assert len(found) == 29
    assert found[27]["fields"] == [
        {"name": "angle", "type": "Float64", "nullable": False},
        {"name": "place", "type": "std/math/v1/Vector3"},
    ]


def test_one_type_is_shown_by_urn_or_by_its_last_word(project: Path) -> None:
    shown = """\
acme/v1/Joint
  one joint
  arrow: Struct
  fields:
    angle  Float64  (never null)
    place  std/math/v1/Vector3
  parameter unit = rad: of the angle
  metadata frame (Utf8): where it is
"""
    for name in ("acme/v1/Joint", "Joint", "acme/v1/Joint[unit=deg]"):
        assert dora("types", "show", name, cwd=project).stdout == shown
    plain = json.loads(dora("types", "show", "Float32", "--json", cwd=project).stdout)
    assert (plain["urn"], plain["arrow"]) == ("std/core/v1/Float32", "Float32")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Imgae", "there is no type `Imgae` (did you mean `std/media/v1/Image`?)"),
        (
            "std/core/v1/Flaot32",
            "there is no type `std/core/v1/Flaot32` (did you mean `std/core/v1/Float32`?)",
        ),
        ("a[", "`a[` is not a valid type name; write it as `std/media/v1/Image`"),
    ],
)
def test_an_unknown_type_is_an_error(tmp_path: Path, name: str, expected: str) -> None:
    result = dora("types", "show", name, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {expected}")


def test_the_module_is_written_to_stdout_or_a_file(project: Path) -> None:
    out = succeeds(dora("types", "generate", cwd=project))
    assert "class Joint(Reader):" in out
    assert "def level(" in out
    written = dora("types", "generate", "dataflow.yml", "-o", "m.py", cwd=project)
    assert written.stdout == "wrote m.py\n"
    assert (project / "m.py").read_text() == out


def test_a_file_that_cannot_be_written_is_an_error(project: Path) -> None:
    result = dora("types", "generate", "-o", "no/m.py", cwd=project)
    assert result.returncode == 1
    assert result.stderr == "error: cannot write no/m.py: No such file or directory\n"


def test_an_invalid_file_of_types_is_an_error(project: Path) -> None:
    (project / "types" / "acme" / "v1.yml").write_text("types: {T: {arrow: X}}\n")
    result = dora("types", "list", cwd=project)
    assert result.returncode == 1
    expected = "error: types/acme/v1.yml:1:20: types.T.arrow: there is no type `X`\n"
    assert result.stderr == expected


def test_urns_are_completed(project: Path) -> None:
    env = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "types\nshow\nacme"}
    assert dora(cwd=project, env=env).stdout.splitlines() == ["acme/v1/Joint"]
    env["_DORA_WORDS"] = "types\n"
    assert dora(cwd=project, env=env).stdout.splitlines() == ["list", "show", "generate"]
