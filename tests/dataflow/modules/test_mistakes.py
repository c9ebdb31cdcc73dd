"""Errors in modules and their use are reported with file, line and the path of modules."""

import os

import pytest

from dorad.dataflow.modules import reader

from .conftest import Project

FLOW = """\
nodes:
- {id: s, path: s.py, outputs: [x]}
- id: m
  module: m.yml
  inputs: {i: s/x}
"""


def _module(nodes: str, header: str = "name: m, inputs: [i]") -> str:
    """A module's file, its nodes from line 3 on."""
    return f"module: {{{header}}}\nnodes:\n{nodes}\n"


GOOD = _module("- {id: a, path: a.py, inputs: {i: _mod/i}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD.replace("name: m, ", ""),
            "m.yml:1:1: module: needs `name` (used by `m` in flow.yml:3)",
        ),
        (
            GOOD.replace("inputs: [i]}", "inputs: [i], output: [o]}"),
            "m.yml:1:32: module.output: unknown key `output` (did you mean `outputs`?; used by",
        ),
        (
            GOOD + "env: {A: 1}",
            "m.yml:4:1: env: unknown key `env` (set it in the node that uses",
        ),
        (GOOD + "deploy: {}", "m.yml:4:1: deploy: unknown key `deploy` (known here: "),
        ("nodes: []", "m.yml:1:1: needs `module` (a module's file starts with its name"),
        ("module: {name: m, inputs: [i]}", "m.yml:1:1: needs `nodes` (a list of the module's"),
        ("[]", "m.yml:1:1: a module is a mapping with `module` and `nodes`, not a list"),
        ("", "m.yml:1:1: the file is empty"),
        ("module: [\n", "m.yml:2:1: not valid YAML: the file ends before a `[`"),
        (
            GOOD.replace("inputs: [i]}", "inputs: [i], inputs_optional: [i]}"),
            "m.yml:1:50: module.inputs_optional[0]: the input `i` cannot be optional: it is",
        ),
        (
            GOOD.replace("inputs: [i]}", "inputs: [i], inputs_optional: [a b]}"),
            "m.yml:1:50: module.inputs_optional[0]: ` ` is not allowed in the id `a b`",
        ),
        (
            GOOD.replace("inputs: [i]}", "inputs: [i, {type: x}]}"),
            "m.yml:1:31: module.inputs[1]: needs `name` (`{name: image, type: std/media/v1/Image}`",
        ),
        (
            GOOD.replace("inputs: [i]}", "inputs: [{name: i, typ: x}]}"),
            "m.yml:1:38: module.inputs[0].typ: unknown key `typ` (did you mean `type`?",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i, j: _mod/k}}"),
            "m.yml:3:46: nodes[0].inputs.j: the module has no input `k` (",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i, j: b/x}}"),
            "m.yml:3:46: nodes[0].inputs.j: there is no node `b` (",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i, j: s/y}}"),
            "m.yml:3:46: nodes[0].inputs.j: `s` has no output `y`; it has x (",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i}}\n- {id: a, path: b.py}"),
            "m.yml:4:4: nodes[1].id: two nodes with the id `a`, the first in line 3 (used by",
        ),
        (
            _module("- {id: _mod, path: a.py, inputs: {i: _mod/i}}"),
            "m.yml:3:3: nodes[0]: the node id `_mod` is reserved (rename the node; used by",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i}, restart: always}"),
            "m.yml:3:44: nodes[0].restart: unknown key `restart`",
        ),
        (
            GOOD.replace("inputs: [i]}", "inputs: [i], outputs: [o]}"),
            "m.yml:1:42: module.outputs[0]: no node of the module has the output `o` (used by",
        ),
        (
            _module(
                "- {id: a, path: a.py, inputs: {i: _mod/i}, outputs: [o]}\n"
                "- {id: b, path: b.py, outputs: [o]}",
                "name: m, inputs: [i], outputs: [o]",
            ),
            "m.yml:1:42: module.outputs[0]: `o` is an output of `a` and `b`; only one",
        ),
        (
            _module("- {id: a, path: a.py, inputs: {i: _mod/i}, env: {A: $NOT_SET}}"),
            "m.yml:3:53: nodes[0].env.A: the environment variable `NOT_SET` is not set",
        ),
        (GOOD + 'build: "make \'x"', "m.yml:4:8: build: a quote ' is never closed"),
    ],
)
def test_in_the_file_of_a_module(project: Project, text: str, expected: str) -> None:
    project.write("m.yml", text)
    error = project.error(FLOW)
    assert error.startswith(expected)
    assert error.endswith("used by `m` in flow.yml:3)")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("{id: m, module: m.yml}", "flow.yml:2:3: nodes[0]: needs the input `i` (m.yml, line 1) ("),
        ("{id: m, module: m.yml, inputs: {j: a/x}}", "nodes[0].inputs: needs the input `i`"),
        (
            "{id: m, module: m.yml, inputs: {i: a/x, k: a/x}}",
            "flow.yml:2:43: nodes[0].inputs.k: m.yml has no input `k` (its inputs are i)",
        ),
        ("{id: m, module: no.yml}", "flow.yml:2:19: nodes[0].module: there is no file `no.yml` ("),
        ("{id: m, module: .}", "flow.yml:2:19: nodes[0].module: `.` is not a file"),
        ("{id: m, module: ''}", "flow.yml:2:19: nodes[0].module: cannot be empty"),
        (
            "{id: m, module: m.yml, path: x, inputs: {i: a/x}}",
            "flow.yml:2:26: nodes[0].path: `module` and `path` exclude each other",
        ),
        *(
            (
                f"{{id: m, module: m.yml, inputs: {{i: a/x}}, {key}: {value}}}",
                f"flow.yml:2:44: nodes[0].{key}: not allowed in a node with `module`",
            )
            for key, value in {
                "args": "x",
                "outputs": "[o]",
                "path_sha256": "a" * 64,
                "cpu_affinity": "[0]",
                "restart_policy": "always",
                "input_types": "{i: x}",
                "pattern": "service-server",
                "min_log_level": "info",
            }.items()
        ),
    ],
)
def test_in_the_node_that_uses_it(project: Project, node: str, expected: str) -> None:
    project.write("m.yml", GOOD)
    found = project.errors(f"nodes:\n- {node}\n- {{id: a, path: a.py, outputs: [x]}}\n")
    assert any(expected in error for error in found), found


def test_a_misspelt_list_of_ports_is_reported_alone(project: Project) -> None:
    project.write("m.yml", GOOD.replace("inputs: [i]", "input: [i]"))
    assert "module.input: unknown key `input` (did you mean `inputs`?" in project.error(FLOW)


def test_an_output_that_the_module_does_not_have(project: Project) -> None:
    project.write("m.yml", _module("- {id: a, path: a, outputs: [o, p]}", "name: m, outputs: [o]"))
    inputs = "{i: m/p, j: m.a/p, k: m.a/q}"
    text = f"nodes:\n- {{id: m, module: m.yml}}\n- {{id: b, path: b, inputs: {inputs}}}\n"
    assert project.errors(text) == [
        "flow.yml:3:32: nodes[1].inputs.i: `m` has no output `p`; it has o",
        "flow.yml:3:50: nodes[1].inputs.k: `m.a` has no output `q`; it has o, p",
    ]


def test_ids_that_collide_in_the_dataflow(project: Project) -> None:
    project.write("m.yml", _module("- {id: a, path: a}", "name: m"))
    assert project.errors("nodes:\n- {id: m.a, path: x}\n- {id: m, module: m.yml}\n") == [
        "flow.yml:3:4: nodes[1].id: two nodes with the id `m.a`, the first in line 2"
    ]


def test_the_log_of_a_module(project: Project) -> None:
    project.write("m.yml", _module("- {id: a, path: a}", "name: m"))
    text = "nodes:\n- {id: m, module: m.yml}\n- {id: b, path: b, inputs: {l: dora/logs/info/m}}\n"
    assert project.error(text) == (
        "flow.yml:3:32: nodes[1].inputs.l: `m` is a module, and each of its nodes has its own log"
        " (name one of them, such as `m.a`)"
    )


def test_ports_outside_of_a_module(project: Project) -> None:
    project.write("m.yml", GOOD)
    text = FLOW + "- {id: b, path: b, inputs: {i: _mod/i}}\n"
    assert project.error(text) == (
        "flow.yml:6:32: nodes[2].inputs.i: there is no node `_mod` (known here: s, m, m.a, b)"
    )


def test_all_errors_are_reported_at_once_and_each_file_once(project: Project) -> None:
    project.write("a.yml", _module("- {id: a, pth: x}\n- {id: b, module: b.yml}", "name: a"))
    project.write("b.yml", _module("- {id: c, path: c, inputs: {i: d/x}}", "name: b, outputs: [o]"))
    found = project.errors(
        """\
        nodes:
        - {id: x, module: a.yml}
        - {id: y, module: a.yml, params: {a-b: 1}}
        - {id: z, path: z, inputs: {i: nowhere/x}}
        - {id: w, module: ../w.yml}
        health_check_interval: never
        """
    )
    assert [line.split(" ", 1)[0] for line in found] == [
        "flow.yml:3:35:",
        "flow.yml:4:32:",
        "flow.yml:5:19:",
        "flow.yml:6:24:",
        "a.yml:3:11:",
        "b.yml:1:29:",
        "b.yml:3:32:",
    ]
    assert found[-1].endswith("used by `b` in a.yml:4, `x` in flow.yml:2)")


def test_a_module_that_contains_itself(project: Project) -> None:
    project.write("a.yml", _module("- {id: b, module: sub/b.yml}", "name: a"))
    project.write("sub/b.yml", _module("- {id: a, module: ../a.yml}", "name: b"))
    assert project.error("nodes: [{id: x, module: a.yml}]") == (
        "sub/b.yml:3:19: nodes[0].module: the module would contain itself:"
        " a.yml -> sub/b.yml -> a.yml (used by `b` in a.yml:3, `x` in flow.yml:1)"
    )


def test_a_dataflow_cannot_be_its_own_module(project: Project) -> None:
    assert "the module would contain itself: flow.yml -> flow.yml" in project.error(
        "nodes: [{id: x, module: flow.yml}]"
    )


def _nested(project: Project, levels: int) -> None:
    for level in range(1, levels):
        inner = f"- {{id: n, module: m{level + 1}.yml}}"
        project.write(f"m{level}.yml", _module(inner, f"name: m{level}"))
    project.write(f"m{levels}.yml", _module("- {id: n, path: n}", "name: last"))


def test_eight_modules_within_each_other_and_not_nine(project: Project) -> None:
    _nested(project, 8)
    assert project.flow("nodes: [{id: n, module: m1.yml}]").nodes[0].id == ".".join("n" * 9)
    _nested(project, 9)
    assert project.error().startswith(
        "m8.yml:3:19: nodes[0].module: modules are nested more than 8 deep (used by"
    )


def test_a_module_that_was_read_before_is_not_nested_deeper_either(project: Project) -> None:
    _nested(project, 8)
    project.write("o.yml", _module("- {id: o, module: m1.yml}", "name: o"))
    assert project.error("nodes: [{id: n, module: m1.yml}, {id: o, module: o.yml}]").startswith(
        "o.yml:3:19: nodes[0].module: modules are nested more than 8 deep: 8 in this one"
    )


def test_few_lines_cannot_become_millions_of_nodes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 20_000)
    for level in range(1, 8):
        inner = "\n".join(f"- {{id: n{i}, module: m{level + 1}.yml}}" for i in range(20))
        project.write(f"m{level}.yml", _module(inner, f"name: m{level}"))
    project.write("m8.yml", _module("- {id: n, path: n}", "name: last"))
    found = project.errors("nodes: [{id: n, module: m1.yml}]")
    assert all("more than 20000 values once modules are expanded" in line for line in found)


def test_a_file_above_a_mebibyte(project: Project) -> None:
    project.write("m.yml", GOOD.ljust(reader.MAX_FILE_SIZE + 1, "#"))
    assert "m.yml: is larger than 1 MB (is it a module's YAML file?; used by" in project.error(FLOW)
    project.write("m.yml", GOOD + "#".ljust(reader.MAX_FILE_SIZE - len(GOOD), "x"))
    assert project.load().nodes[1].id == "m.a"


def test_a_file_that_is_not_utf_8(project: Project) -> None:
    (project.folder / "m.yml").write_bytes(b"module: {name: \xff}")
    assert "m.yml:1:16: the byte 0xff is not UTF-8" in project.error(FLOW)


def test_a_fifo_is_refused(project: Project) -> None:
    os.mkfifo(project.folder / "m.yml")
    assert "`m.yml` is not a file" in project.error(FLOW)


def test_a_required_port_behind_an_optional_one(project: Project) -> None:
    project.write("m.yml", GOOD)
    outer = _module(
        "- {id: in, module: m.yml, inputs: {i: _mod/x}}", "name: o, inputs_optional: [x]"
    )
    project.write("o.yml", outer)
    assert project.error("nodes: [{id: o, module: o.yml}]") == (
        "o.yml:3:39: nodes[0].inputs.i: m.yml needs the input `i`, which comes from an optional"
        " input that is not connected (connect that one, or make this one optional, too;"
        " used by `o` in flow.yml:1)"
    )


def test_nodes_that_could_block_each_other_across_modules(project: Project) -> None:
    project.write(
        "m.yml",
        """
        module: {name: m, inputs: [i], outputs: [o]}
        nodes:
        - id: a
          path: a
          inputs: {i: {source: _mod/i, queue_policy: backpressure}}
          outputs: [o]
        """,
    )
    through = "{{id: {0}, module: m.yml, inputs: {{i: {1}/o}}}}"
    text = f"nodes: [{through.format('l', 'r')}, {through.format('r', 'l')}]"
    assert "every input on the cycle" in project.error(text)


def test_an_input_and_an_output_port_that_are_not_connected_are_not_a_cycle(
    project: Project,
) -> None:
    project.write(
        "m.yml",
        """
        module: {name: m, inputs: [i], outputs: [o]}
        nodes:
        - {id: a, path: a, inputs: {i: {source: _mod/i, queue_policy: backpressure}}}
        - {id: b, path: b, outputs: [o]}
        """,
    )
    wait = "{source: m/o, queue_policy: backpressure}"
    node = f"{{id: n, path: n, inputs: {{i: {wait}}}, outputs: [o]}}"
    text = f"nodes: [{{id: m, module: m.yml, inputs: {{i: n/o}}}}, {node}]"
    assert len(project.flow(text).nodes) == 3


def test_warnings_name_the_path_of_modules_and_come_once(project: Project) -> None:
    project.write(
        "m.yml",
        """\
        module: {name: m, inputs_optional: [i, j]}
        nodes:
        - {id: a, path: a, inputs: {i: _mod/i}, env: {LD_PRELOAD: x}}
        """,
    )
    flow = project.flow("nodes: [{id: x, module: m.yml}, {id: y, module: m.yml}]")
    assert [str(warning) for warning in flow.warnings] == [
        (
            "m.yml:1:40: module.inputs_optional[1]: no node of the module receives `j`"
            " (used by `x` in flow.yml:1)"
        ),
        (
            "m.yml:3:47: nodes[0].env.LD_PRELOAD: `LD_PRELOAD` is reserved and keeps its value"
            " (set it where dora is started; used by `x` in flow.yml:1)"
        ),
    ]


def test_a_module_cannot_be_run_as_a_dataflow(project: Project) -> None:
    assert project.error(GOOD) == (
        "flow.yml:1:1: module: this is the file of a module, not a dataflow"
        " (name it in a node's `module`, or check it with `dora expand --module`)"
    )
