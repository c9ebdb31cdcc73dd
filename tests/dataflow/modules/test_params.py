"""The parameters of a module: in the arguments of its nodes, and in their environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.modules.flatten import substitute
from tests.dataflow.reading import unhurried

from .conftest import Project


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--gain ${_param.gain}", "--gain 2"),
        ("--gain $PARAM_GAIN", "--gain 2"),
        ("${_param.gain}${_param.Name}$PARAM_NAME", "2a ba b"),
        ("${_param.Gain} ${_param.name}", "${_param.Gain} ${_param.name}"),
        (
            "$PARAM_gain $PARAM_GAINS ${PARAM_GAIN} $GAIN",
            "$PARAM_gain $PARAM_GAINS ${PARAM_GAIN} $GAIN",
        ),
        ("${_param.other} $PARAM_OTHER $HOME", "${_param.other} $PARAM_OTHER $HOME"),
        ("${_param.loop}", "${_param.gain} $PARAM_GAIN"),
        ("", ""),
    ],
)
def test_references_in_a_text(text: str, expected: str) -> None:
    params = {"gain": "2", "Name": "a b", "loop": "${_param.gain} $PARAM_GAIN"}
    assert substitute(text, params) == expected


@unhurried
@given(st.text(), st.dictionaries(st.from_regex(r"[A-Za-z0-9_]+", fullmatch=True), st.text()))
def test_a_text_without_references_stays(text: str, params: dict[str, str]) -> None:
    assert substitute(text.replace("$", ""), params) == text.replace("$", "")


_FLOW = """
nodes:
  - {id: m, module: m.yml, params: {gain: 1.50, Mode: "a b", on: true}}
"""
_MODULE = """
module: {name: m}
nodes:
  - id: a
    path: a.py
    args: --gain ${_param.gain} --mode '${_param.Mode}' --on $PARAM_ON $PARAM_X
    name: ${_param.gain}
    env: {PARAM_GAIN: own, OTHER: "${_param.gain:-x}"}
"""


def test_params_are_inserted_into_args_only(project: Project) -> None:
    project.write("m.yml", _MODULE.replace('"${_param.gain:-x}"', "$$PARAM_GAIN"))
    node = project.node(_FLOW, "m.a")
    assert node.args == "--gain 1.50 --mode 'a b' --on true $PARAM_X"
    assert node.name == "${_param.gain}"
    assert node.own_env["OTHER"] == "$PARAM_GAIN"


def test_params_are_variables_that_override_those_of_the_node(project: Project) -> None:
    project.write("m.yml", _MODULE.replace('"${_param.gain:-x}"', "x"))
    env = project.node(_FLOW, "m.a").own_env
    assert {name: env[name] for name in env if name.startswith("PARAM")} == {
        "PARAM_GAIN": "1.50",
        "PARAM_MODE": "a b",
        "PARAM_ON": "true",
    }


def test_each_use_has_its_own(project: Project) -> None:
    project.write("m.yml", "module: {name: m}\nnodes: [{id: a, path: a, args: $PARAM_X}]")
    flow = project.flow(
        "nodes:\n- {id: l, module: m.yml, params: {x: 1}}\n- {id: r, module: m.yml, params: {x: 2}}"
    )
    assert [node.args for node in flow.nodes] == ["1", "2"]


def test_a_module_passes_params_on_by_name(project: Project) -> None:
    project.write(
        "m.yml", "module: {name: m}\nnodes: [{id: a, path: a, args: '$PARAM_X $PARAM_Y'}]"
    )
    project.write(
        "o.yml",
        "module: {name: o}\nnodes: [{id: m, module: m.yml, params: {x: '${_param.y}0'}}]",
    )
    node = project.node("nodes: [{id: o, module: o.yml, params: {y: 4}}]", "o.m.a")
    assert node.args == "40 $PARAM_Y"
    assert node.own_env == {"PARAM_X": "40", "PARAM_Y": "4"}


def test_the_command_of_a_shell_node_gets_params_too(project: Project) -> None:
    project.write("m.yml", "module: {name: m}\nnodes: [{id: a, path: shell, args: echo $PARAM_X}]")
    assert project.node("nodes: [{id: o, module: m.yml, params: {x: 4}}]", "o.a").args == "echo 4"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{A: 1, a: 2}", "nodes[0].params.a: `a` differs only in case from `A`"),
        ("{a-b: 1}", "nodes[0].params.a-b: `a-b` is not a valid parameter name"),
        ("{'': 1}", "nodes[0].params.: `` is not a valid parameter name"),
        ("{a: [1]}", "nodes[0].params.a: must be text, not a list"),
        ("[a]", "nodes[0].params: must be a mapping, not a list"),
    ],
)
def test_mistakes(project: Project, params: str, message: str) -> None:
    project.write("m.yml", "module: {name: m}\nnodes: []")
    assert message in project.error(f"nodes: [{{id: m, module: m.yml, params: {params}}}]")


def test_a_quote_in_a_param_can_break_the_arguments_of_a_node(project: Project) -> None:
    project.write("m.yml", "module: {name: m}\nnodes:\n- id: a\n  path: a\n  args: $PARAM_X")
    assert project.error("nodes:\n- {id: m, module: m.yml, params: {x: it's}}") == (
        "m.yml:5:9: nodes[0].args: a quote ' is never closed (write `\\'` for the character itself;"
        " used by `m` in flow.yml:2)"
    )
