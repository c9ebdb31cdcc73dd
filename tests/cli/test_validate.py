"""`dora validate`: problems, warnings, notes, the summary."""

import json

import pytest

from tests.cli.dora import dora

GOOD = """\
nodes:
  - id: camera
    path: dynamic
    inputs:
      tick: dora/timer/millis/33
    outputs: [image, info]
  - id: viewer
    path: dynamic
    inputs:
      image: camera/image
      info: {source: camera/info, queue_size: 1}
"""

BAD = """\
nodes:
  - id: camera
    path: dynamic
    outputs: [image]
  - id: viewer
    path: dynamic
    inputs:
      image: camera/imgae
    outputz: [x]
"""


@pytest.fixture
def good(tmp_path):
    (tmp_path / "dataflow.yml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "dataflow.yml").write_text(BAD)
    return tmp_path


def test_a_good_file_gets_a_short_summary(good):
    result = dora("validate", "dataflow.yml", cwd=good)
    assert result.returncode == 0
    assert result.stdout == "dataflow.yml: ok, 2 nodes, 2 edges, 1 timer\n"
    assert result.stderr == ""


def test_without_a_path_it_takes_the_dataflow_of_the_folder(good):
    assert dora("validate", cwd=good).stdout.startswith("dataflow.yml: ok")


def test_without_a_path_and_a_dataflow_it_is_a_usage_error(tmp_path):
    assert dora("validate", cwd=tmp_path).returncode == 2


def test_all_problems_are_listed_one_a_line_with_their_place(bad):
    result = dora("validate", cwd=bad)
    assert result.returncode == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("dataflow.yml:8:14: nodes[1].inputs.image: ")
    assert second.startswith("dataflow.yml:9:5: nodes[1].outputz: ")
    assert "`outputs`" in second


def test_json_lists_problems_with_line_and_column(bad):
    result = dora("validate", "--json", cwd=bad)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert [(p["line"], p["column"], p["key"]) for p in report["problems"]] == [
        (8, 14, "nodes[1].inputs.image"),
        (9, 5, "nodes[1].outputz"),
    ]


def test_json_counts_the_parts_of_a_valid_file(good):
    report = json.loads(dora("validate", "--json", cwd=good).stdout)
    assert report["ok"] is True
    assert (report["nodes"], report["edges"], report["timers"]) == (2, 2, 1)
    assert report["problems"] == report["warnings"] == report["notes"] == []


def test_a_missing_program_is_a_warning(tmp_path):
    (tmp_path / "dataflow.yml").write_text("nodes:\n  - id: a\n    path: missing.py\n")
    result = dora("validate", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith("warning: dataflow.yml:3:5: nodes[0].path: no file")


def test_a_missing_operator_file_is_a_warning(tmp_path):
    text = "nodes:\n  - id: a\n    operators:\n      - {id: x, python: {source: missing.py}}\n"
    (tmp_path / "dataflow.yml").write_text(text)
    result = dora("validate", cwd=tmp_path)
    assert result.returncode == 0
    printed = (
        "warning: dataflow.yml:4:26: nodes[0].operators[0].python.source: no file `missing.py`"
    )
    assert result.stderr.startswith(printed)


def test_a_node_that_is_built_first_may_have_no_program_yet(tmp_path):
    text = "nodes:\n  - id: a\n    path: missing.py\n    build: make\n"
    (tmp_path / "dataflow.yml").write_text(text)
    result = dora("validate", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_unsupported_keys_are_a_note_and_not_a_failure(tmp_path):
    text = "nodes:\n  - id: a\n    hub: x@1\n"
    (tmp_path / "dataflow.yml").write_text(text)
    result = dora("validate", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith("note: dataflow.yml:3:5: nodes[0].hub: ")


TYPED = """\
nodes:
  - id: a
    path: dynamic
    outputs: [x, y]
    output_types: {x: std/core/v1/Bool}
  - id: b
    path: dynamic
    inputs: {x: a/x, y: a/y, z: a/x}
    input_types: {x: std/core/v1/String, y: std/core/v1/String}
"""


def test_types_that_do_not_fit_are_warnings_and_with_strict_types_errors(tmp_path):
    (tmp_path / "dataflow.yml").write_text(TYPED)
    result = dora("validate", cwd=tmp_path)
    assert result.returncode == 0
    warning, note = result.stderr.splitlines()
    assert warning == (
        "warning: dataflow.yml:9:19: nodes[1].input_types.x: "
        "`a/x` sends `std/core/v1/Bool`, but `std/core/v1/String` is expected"
    )
    assert note.startswith("note: dataflow.yml:8:30: nodes[1].inputs.z: has the inferred type ")
    assert "`std/core/v1/Bool`, from `a/x`" in note
    strict = dora("validate", "--strict-types", "--json", cwd=tmp_path)
    assert strict.returncode == 1
    found = json.loads(strict.stdout)
    assert [problem["key"] for problem in found["problems"]] == [
        "nodes[1].input_types.x",
        "nodes[1].input_types.y",
    ]
    assert found["warnings"] == []
    assert [note["key"] for note in found["notes"]] == ["nodes[1].inputs.z"]


def test_a_file_with_strict_types_is_not_run_unless_they_fit(tmp_path):
    (tmp_path / "dataflow.yml").write_text(f"strict_types: true\n{TYPED}")
    for command in ("validate", "build", "run"):
        result = dora(command, "dataflow.yml", cwd=tmp_path)
        assert result.returncode == 1, command
        assert "but `std/core/v1/String` is expected" in result.stderr


def test_build_warns_of_types_and_with_strict_types_builds_nothing(tmp_path):
    built = TYPED.replace("    outputs", "    build: touch built\n    outputs")
    (tmp_path / "dataflow.yml").write_text(built)
    result = dora("build", "--strict-types", "dataflow.yml", cwd=tmp_path)
    assert result.returncode == 1
    assert not (tmp_path / "built").exists()
    result = dora("build", "dataflow.yml", cwd=tmp_path)
    assert result.returncode == 0
    assert "warning: dataflow.yml:10:19" in result.stderr
    assert (tmp_path / "built").exists()


def test_errors_in_a_file_of_types_fail_the_check(good):
    (good / "types" / "acme").mkdir(parents=True)
    (good / "types" / "acme" / "v1.yml").write_text("types:\n  X: {arrow: Flaot32}\n")
    result = dora("validate", cwd=good)
    assert result.returncode == 1
    assert result.stderr == (
        "types/acme/v1.yml:2:14: types.X.arrow: there is no type `Flaot32` "
        "(did you mean `Float32`?)\n"
    )


IGNORED = """\
nodes:
  - id: source
    path: source.py
    build: "true"
    inputs:
      tick: {source: dora/timer/secs/1, queue-size: 1}
"""


@pytest.fixture
def ignored(tmp_path):
    (tmp_path / "dataflow.yml").write_text(IGNORED)
    (tmp_path / "source.py").write_text("from dora import Node\nNode()\n")
    return tmp_path


KEY = "nodes[0].inputs.tick.queue-size"
PLACE = f"dataflow.yml:6:41: {KEY}: the unknown key `queue-size` is ignored"


@pytest.mark.parametrize("command", ["validate", "build", "run"])
def test_an_ignored_key_is_reported_with_line_and_column_and_the_nearest_key(ignored, command):
    result = dora(command, "dataflow.yml", cwd=ignored)
    assert result.returncode == 0, result.stderr
    assert f"warning: {PLACE} (did you mean `queue_size`?)\n" in result.stderr


@pytest.mark.parametrize("command", ["validate", "build", "run", "start"])
def test_strict_makes_ignored_keys_errors(ignored, command):
    result = dora(command, "--strict", "dataflow.yml", cwd=ignored)
    assert result.returncode == 1
    assert PLACE in result.stderr
    assert "warning" not in result.stderr
    assert not (ignored / "out").exists()


def test_json_marks_warnings_about_ignored_keys(ignored):
    found = json.loads(dora("validate", "--json", cwd=ignored).stdout)
    assert (found["ok"], [warning["ignored"] for warning in found["warnings"]]) == (True, [True])
    found = json.loads(dora("validate", "--strict", "--json", cwd=ignored).stdout)
    assert (found["ok"], found["warnings"]) == (False, [])


MANIFEST = """\
apiVersion: 1
name: lidar
namespace: acme
runtime: python
entrypoint: lidar
outputs: {cloud: {}}
"""


def test_a_node_s_manifest_is_checked_instead_of_a_dataflow(tmp_path):
    (tmp_path / "dora-node.yml").write_text(MANIFEST)
    result = dora("validate", "--node-manifest", "dora-node.yml", "--offline", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "dora-node.yml: ok, 0 inputs, 1 output\n"
    found = dora("validate", "--node-manifest", "dora-node.yml", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["ok"]
    (tmp_path / "dora-node.yml").write_text(MANIFEST.replace("python", "go"))
    wrong = dora("validate", "--node-manifest", "dora-node.yml", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "dora-node.yml:4:10: runtime: must be one of" in wrong.stderr
    both = dora("validate", "a.yml", "--node-manifest", "dora-node.yml", cwd=tmp_path)
    assert both.returncode in (1, 2)
