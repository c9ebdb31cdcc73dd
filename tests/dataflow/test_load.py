"""Loading a dataflow: the file itself, its top level, and all problems at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dorad.dataflow.errors import DataflowError, Problem
from dorad.dataflow.load import from_descriptor, load
from dorad.dataflow.model import TypeRule
from dorad.dataflow.settings import Deploy
from dorad.dataflow.text import MAX_FILE_SIZE
from tests.dataflow.reading import problem, problems, read


def _refusal(path: Path) -> str:
    with pytest.raises(DataflowError) as caught:
        load(path)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yml"
    assert _refusal(path).startswith(f"{path}: no such file")


def test_a_directory(tmp_path: Path) -> None:
    assert _refusal(tmp_path).startswith(f"{tmp_path}: is a directory")


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    path = tmp_path / "x" / "flow.yml"
    assert _refusal(path) == f"{path}: cannot be read: Not a directory"


def test_a_path_with_a_nul_character() -> None:
    assert re.search("cannot be read: .*embedded null", _refusal(Path("a\0b")))


def test_an_endless_file() -> None:
    assert _refusal(Path("/dev/zero")).startswith("/dev/zero: is not a regular file")


def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "flow.yml")
    assert "is not a regular file" in _refusal(tmp_path / "flow.yml")


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("nodes: []\n#".ljust(MAX_FILE_SIZE, "x"))
    assert load(path).nodes == ()


def test_the_base_directory_is_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "flow.yml").write_text("nodes: []")
    monkeypatch.chdir(tmp_path)
    flow = load("sub/flow.yml")
    assert flow.base_dir == tmp_path / "sub"
    assert flow.path == Path("sub/flow.yml")


def test_variables_come_from_this_process_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("nodes: []\nenv: {A: $DORAD_TEST_X}")
    monkeypatch.setenv("DORAD_TEST_X", "here")
    assert load(path).env == {"A": "here"}
    assert load(path, environ={"DORAD_TEST_X": "there"}).env == {"A": "there"}


def test_the_defaults_of_the_top_level() -> None:
    flow = read("nodes: []")
    assert flow.health_check_interval == 5.0
    assert flow.exit_when_nodes_finish is None
    assert (flow.strict_types, flow.debug, flow.deploy, flow.type_rules) == (False, False, None, ())


def test_every_key_of_the_top_level() -> None:
    flow = read(
        """
        env: {A: 1}
        deploy: {machine: m}
        debug: {enable_debug_inspection: true}
        health_check_interval: 0.5
        strict_types: true
        exit_when_nodes_finish: false
        type_rules: [{from: x, to: y}]
        nodes: []
        """
    )
    assert flow.env == {"A": "1"}
    assert flow.deploy == Deploy(machine="m")
    assert flow.debug
    assert flow.health_check_interval == 0.5
    assert flow.strict_types
    assert flow.exit_when_nodes_finish is False
    assert flow.type_rules == (TypeRule("x", "y"),)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("env: {}", "", "needs `nodes`"),
        ("nodes: {}", "nodes", "must be a list, not a mapping"),
        ("nodes: [a]", "nodes[0]", "must be a mapping with `id` and `path`, not `a`"),
        ("nodes: [~]", "nodes[0]", "the node is empty"),
        ("node: []", "node", "unknown key `node` (did you mean `nodes`?)"),
        ("nodes: []\ncommunication: {}", "communication", "unknown key `communication` (remove it"),
        ("nodes: []\n_unstable_deploy: {}", "_unstable_deploy", "(write `deploy`)"),
        ("nodes: []\n_unstable_debug: {}", "_unstable_debug", "(write `debug`)"),
        ("nodes: []\ndebug: {x: 1}", "debug.x", "(known here: enable_debug_inspection)"),
        ("nodes: []\nstrict_types: yes", "strict_types", "not `yes` (write `true`)"),
        ("nodes: []\nstrict_types: 1", "strict_types", "must be true or false, not 1"),
        ("nodes: []\nsafe_to_update: ''", "safe_to_update", "needs a command"),
        ("nodes: []\nsafe_to_update: '\"a'", "safe_to_update", "not a command line"),
        ("nodes: []\nhealth_check_interval: 0", "health_check_interval", "above 0, not 0"),
        ("nodes: []\nhealth_check_interval: -1", "health_check_interval", "above 0, not -1"),
        ("nodes: []\nhealth_check_interval: .nan", "health_check_interval", "finite number"),
        ("nodes: []\nhealth_check_interval: true", "health_check_interval", "not true"),
        ("nodes: []\ntype_rules: [{from: a}]", "type_rules[0]", "needs `to`"),
        ("nodes: []\ntype_rules: [{from: a, too: b}]", "type_rules[0].too", "did you mean `to`?"),
        ("nodes: []\ndeploy: {distribute: ftp}", "deploy.distribute", "local, scp, http, not"),
        ("nodes: []\ndeploy: {lables: {}}", "deploy.lables", "did you mean `labels`?"),
        ("nodes: []\ndeploy: {labels: {a: []}}", "deploy.labels.a", "must be text, not a list"),
        ("nodes: []\nenv: [A]", "env", "must be a mapping of names to values, not a list"),
    ],
)
def test_mistakes_of_the_top_level(text: str, key: str, message: str) -> None:
    found = problem(text)
    assert found.key == key
    assert message in str(found)


def test_all_problems_are_found_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        """\
        nodes:
          - id: a
            pth: a.py
            inputs: {x: b/none, y: nowhere/out}
          - id: b
            path: b.py
            restart_policy: sometimes
          - id: a
            path: c.py
        strict: true
        """
    )
    assert [(one.line, one.column, one.key) for one in found] == [
        (3, 5, "nodes[0].pth"),
        (4, 17, "nodes[0].inputs.x"),
        (4, 28, "nodes[0].inputs.y"),
        (7, 21, "nodes[1].restart_policy"),
        (8, 5, "nodes[2].id"),
        (10, 1, "strict"),
    ]


def test_every_key_has_a_position() -> None:
    flow = read("nodes:\n  - id: a\n    path: x\n    inputs: {t: dora/timer/secs/1}\n")
    assert flow.problem("nodes[0].inputs.t", "m", "h") == Problem(
        "flow.yml", 4, 14, "nodes[0].inputs.t", "m", "h"
    )


def test_a_problem_prints_as_one_line() -> None:
    one = Problem("f.yml", 3, 7, "nodes[0].id", "bad\nid \x1b[31m", "do this")
    assert str(one) == "f.yml:3:7: nodes[0].id: bad\\nid \\x1b[31m (do this)"
    assert str(Problem("f.yml", 0, 0, "", "no such file")) == "f.yml: no such file"


def test_a_node_is_found_by_id() -> None:
    flow = read("nodes: [{id: a, path: x}, {id: b, path: y}]")
    assert flow.node("b").path == "y"
    with pytest.raises(KeyError):
        flow.node("c")


def test_loading_imports_nothing_heavy() -> None:
    script = "import dorad.dataflow.load, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ
    )
    heavy = {"asyncio", "pyarrow", "numpy", "difflib", "graphlib", "dataclasses"}
    assert heavy.isdisjoint(done.stdout.split())


LENIENT = """\
nodes:
  - id: a
    operator:
      python: {source: a.py, conda_envs: x}
      env: {A: 1}
      restart-policy: always
      outputs: [o]
      inputs:
        i: {source: dora/timer/secs/1, queue-size: 3, zzz: {y: 1}}
"""


def test_keys_that_dora_ignores_are_reported_with_line_and_column_and_dropped() -> None:
    flow = read(LENIENT)
    beside = "it belongs to the node, beside `operator` or `operators`"
    options = "source, queue_policy, queue_size, input_timeout, latched, max_rate_hz"
    assert [(w.line, w.column, w.key, w.hint) for w in flow.warnings] == [
        (4, 30, "nodes[0].operator.python.conda_envs", "did you mean `conda_env`?"),
        (5, 7, "nodes[0].operator.env", beside),
        (6, 7, "nodes[0].operator.restart-policy", beside),
        (9, 40, "nodes[0].operator.inputs.i.queue-size", "did you mean `queue_size`?"),
        (9, 55, "nodes[0].operator.inputs.i.zzz", f"known here: {options}"),
    ]
    assert flow.warnings[1].message == "the unknown key `env` is ignored"
    assert flow.ignored == flow.warnings
    again = from_descriptor(flow.descriptor, path=flow.path)
    assert again.warnings == ()
    assert again == flow


def test_a_dataflow_may_have_no_nodes_yet() -> None:
    flow = read("nodes:\n")
    assert flow.nodes == ()
    assert flow.descriptor["nodes"] == []
    assert [warning.message for warning in flow.warnings] == ["the dataflow has no nodes"]
    assert flow.ignored == ()


def test_a_folder_whose_name_is_not_text_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xe4r")
    folder.mkdir()
    (folder / "flow.yml").write_text("nodes: [{id: a, path: dynamic}]\n")
    with pytest.raises(DataflowError, match="its path is not UTF-8"):
        load(folder / "flow.yml")
