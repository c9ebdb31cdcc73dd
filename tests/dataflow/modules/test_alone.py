"""The file of a module, checked without a dataflow that uses it."""

from pathlib import Path

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.modules.expansion import check_module

from .conftest import Project


def _errors(path: str) -> list[str]:
    with pytest.raises(DataflowError) as caught:
        check_module(Path(path), environ={})
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_module_lists_its_ports(project: Project) -> None:
    project.write(
        "m.yml",
        """
        module: {name: m, inputs: [a], inputs_optional: [b], outputs: [o]}
        nodes: [{id: n, path: n.py, args: $PARAM_X, inputs: {a: _mod/a, b: _mod/b}, outputs: [o]}]
        """,
    )
    level, warnings = check_module(Path("m.yml"), environ={})
    assert level.header.name == "m"
    assert (list(level.header.inputs), list(level.header.outputs)) == (["a", "b"], ["o"])
    assert warnings == ()


def test_errors_in_a_module_are_found_without_a_dataflow_that_uses_it(project: Project) -> None:
    project.write("o.yml", "module: {name: o}\nnodes: [{id: m, module: m.yml}]")
    project.write("m.yml", "module: {name: m, outputs: [x]}\nnodes: []\nenv: {}")
    assert _errors("o.yml") == [
        (
            "m.yml:1:29: module.outputs[0]: no node of the module has the output `x`"
            " (used by `m` in o.yml:2)"
        ),
        (
            "m.yml:3:1: env: unknown key `env` (set it in the node that uses the module;"
            " used by `m` in o.yml:2)"
        ),
    ]


def test_problems_that_only_a_use_of_a_module_shows(project: Project) -> None:
    project.write(
        "m.yml",
        "module: {name: m, inputs: [i]}\nnodes: [{id: n, path: n, inputs: {i: _mod/i}}]",
    )
    project.write(
        "o.yml",
        """\
        module: {name: o, inputs_optional: [i]}
        nodes:
        - {id: m, module: m.yml, inputs: {i: _mod/i}}
        - {id: a, path: a, inputs: {b: {source: b/o, queue_policy: backpressure}}, outputs: [o]}
        - {id: b, path: b, inputs: {a: {source: a/o, queue_policy: backpressure}}, outputs: [o]}
        """,
    )
    port, cycle = _errors("o.yml")
    assert cycle.startswith("o.yml:4:29: nodes[1].inputs.b: every input on the cycle o.a -> o.b")
    assert port.startswith("o.yml:3:38: nodes[0].inputs.i: m.yml needs the input `i`, which comes")
    assert "used by" not in cycle + port


def test_types_that_do_not_match_are_warned_of(project: Project) -> None:
    project.write(
        "m.yml",
        """\
        module: {name: m, inputs: [{name: i, type: A}]}
        nodes: [{id: n, path: n, inputs: {i: _mod/i}, input_types: {i: B}}]
        """,
    )
    _, (warning,) = check_module(Path("m.yml"), environ={})
    assert str(warning) == (
        "m.yml:2:61: nodes[0].input_types.i: `B` does not agree with `A`, the type of the input"
        " `i` of m.yml"
    )


def test_the_current_folder_is_the_project_if_it_holds_the_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("a/m.yml", "module: {name: m}\nnodes: [{id: n, path: ../n.py}]")
    assert check_module(Path("a/m.yml"), environ={})[0].file == "a/m.yml"
    monkeypatch.chdir(project.folder / "a")
    assert _errors("m.yml")[0].startswith("m.yml:2:23: nodes[0].path: `../n.py` leaves")
    other = project.folder / "b"
    other.mkdir()
    monkeypatch.chdir(other)
    assert _errors("../a/m.yml")[0].startswith("../a/m.yml:2:23: nodes[0].path: `../n.py`")


def test_a_missing_file(project: Project) -> None:
    assert _errors("no.yml") == ["no.yml: no such file (give the path of a module's YAML file)"]
