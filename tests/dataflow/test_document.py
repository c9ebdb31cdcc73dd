"""How the YAML of a dataflow is read: scalars, duplicate keys, limits, and syntax errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.document import MAX_DEPTH, core_scalar
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import load, parse
from tests.dataflow.reading import path_node, path_node_text, problem, problems, read, unhurried


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("007", "007"),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("0o17", 15),
        ("0b101", 5),
        ("0xZZ", "0xZZ"),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        (".", "."),
        ("+", "+"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("inf", "inf"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("٣", "٣"),
        ("9" * 500, "9" * 500),
    ],
)
def test_unquoted_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = core_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_float() -> None:
    found = core_scalar(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


@unhurried
@given(st.text())
def test_any_text_is_some_scalar(text: str) -> None:
    core_scalar(text)


@pytest.mark.parametrize("written", ['"5"', "'5'", "!!str 5"])
def test_quoted_and_tagged_numbers_are_text(written: str) -> None:
    assert path_node(f"env: {{A: {written}}}").env == {"A": "5"}


def test_text_where_text_is_wanted_is_kept_as_spelt() -> None:
    flow = read("nodes: [{id: 1, path: x, args: 1.10, outputs: [true]}]")
    assert flow.descriptor["nodes"] == [
        {"id": "1", "path": "x", "args": "1.10", "outputs": ["true"]}
    ]
    assert flow.nodes[0].args == "1.10"


def test_a_key_without_value_is_as_absent() -> None:
    node = path_node("inputs:\noutputs: ~\nargs:\nenv: null\nrestart_policy:\ncpu_affinity:")
    assert (node.inputs, node.outputs, node.args, node.env) == ((), (), None, {})


def test_anchors_and_aliases_work() -> None:
    flow = read("nodes:\n- {id: a, path: x, env: &e {A: $H}}\n- {id: b, path: x, env: *e}", H="h")
    assert flow.node("b").env == {"A": "h"}


def test_a_duplicate_key_names_both_lines() -> None:
    found = problem(path_node_text("args: x\nargs: y"))
    assert (found.line, found.column, found.key) == (5, 5, "nodes[0].args")
    assert found.message == "given twice, first in line 4"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "the file is empty"),
        ("# nothing\n", "1:1", "the file is empty"),
        ("- a\n", "1:1", "with `nodes`, not a list (write `nodes:` in a line above it)"),
        ("hello", "1:1", "a dataflow is a mapping with `nodes`, not `hello`"),
        ("nodes: []\n---\nnodes: []\n", "2:1", "a second document starts here"),
        ("nodes:\n\t- id: a\n", "2:1", "a tab cannot indent in YAML"),
        ("nodes: [\n", "2:1", "the file ends before a `[` or `{` is closed"),
        ("nodes: [{a: 1", "1:9", "the file ends before a"),
        ("nodes: [{id: a path: x}]", "1:20", "a `,` or the closing bracket is missing"),
        ("nodes:\n- id: a\n path: x", "3:2", "this does not match the lines above"),
        ("nodes:\n- id: a\n  path x\n  b: 1", "3:3", "a key without its `:`"),
        ("nodes:\n- id: a\n  path:x.py", "3:7", "no space after this `:`"),
        ("nodes:\n- id: a\n  path:x.py\n", "3:7", "no space after this `:`"),
        ("nodes:\n- id: a\n  http://x\n", "3:3", "a key without its `:`"),
        ("nodes:\n- id: a\n  args: - x", "3:9", "a `-` that does not fit here"),
        ('nodes: "\\d"', "1:9", "an unknown escape in the quoted text"),
        ("nodes:\n- id:a\n  path:b", "2:3", "a space must follow the `:`"),
        ('nodes: "a\n', "1:8", "the quoted text that starts here never ends"),
        ("nodes: a: b", "1:9", "a `:` that does not fit here"),
        ("nodes: []\n env: {}", "2:2", "this does not match the lines above"),
        ("nodes: @x", "1:8", "text cannot start with `@`"),
        ("nodes: *x", "1:8", "an alias (`*name`) without its anchor (`&name`)"),
        ("nodes: []\nenv: {A: \x07}", "2:10", "control character 0x07 is not allowed"),
        ("nodes: []\n? [a]\n: b", "2:3", "a key must be text"),
        ("nodes: !x []", "1:8", "the tag !x has no meaning here"),
        ("nodes: []\nenv: {A: !!int x}", "2:10", "`x` cannot have the tag tag:yaml.org,2002:int"),
        ("nodes: []\nenv: {A: !x x}", "2:10", "`x` cannot have the tag !x"),
    ],
)
def test_broken_yaml_is_one_line_with_a_place(text: str, place: str, message: str) -> None:
    found = problem(text)
    assert f"{found.line}:{found.column}" == place
    assert message in str(found)
    assert "\n" not in str(found)


def test_a_merge_key_is_refused_once() -> None:
    found = problem("nodes:\n- &x {id: a, path: x}\n- {<<: *x}")
    assert found.message == "merge keys are not part of YAML 1.2"


@pytest.mark.parametrize("owner", ["env", "inputs", "output_types"])
def test_a_merge_key_is_refused_as_such_among_names_of_the_user(owner: str) -> None:
    found = problem(f"nodes:\n- id: a\n  path: x\n  {owner}:\n    <<: {{A: b/c}}")
    assert found.message == "merge keys are not part of YAML 1.2"
    assert (found.line, found.column, found.key) == (5, 5, f"nodes[0].{owner}.<<")


def test_aliases_cannot_grow_without_bound() -> None:
    lines = ["a: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "once aliases are expanded" in problem("\n".join(lines)).message


def test_lists_cannot_be_nested_without_bound() -> None:
    assert problem(f"nodes: {'[' * 40}{']' * 40}").message == "nested more than 32 deep"


def test_an_alias_inside_its_own_anchor_ends() -> None:
    assert problem("nodes: &a [*a]").message == "contains itself, through an alias"


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000, "a: " + "{a: " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert problem(text).line == 1


def test_nesting_up_to_the_limit_is_read() -> None:
    deep = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    assert all("nested" not in one.message for one in problems(f"nodes: []\nx: {deep}"))


@unhurried
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_whole_lines(text: str) -> None:
    try:
        parse(text, path=Path("f.yml"), environ={})
    except DataflowError as error:
        lines = str(error).split("\n")
        assert len(lines) == len(error.problems)
        assert all(line.startswith("f.yml:") for line in lines)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"nodes: []\nenv: {\xc3\xa9: \xff}", ":2:10", "the byte 0xff is not UTF-8"),
        ("nodes: []".encode("utf-16"), ":1:1", "the file is UTF-16, not UTF-8"),
    ],
)
def test_a_file_that_is_not_utf8(tmp_path: Path, content: bytes, place: str, message: str) -> None:
    file = tmp_path / "flow.yml"
    file.write_bytes(content)
    with pytest.raises(DataflowError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}{place}: {message}")


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    file.write_bytes(b"\xef\xbb\xbfnodes: []\n")
    assert load(file).nodes == ()
