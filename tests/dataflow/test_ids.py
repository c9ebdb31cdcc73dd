"""Ids of nodes, inputs and outputs."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import TextError
from dorad.dataflow.ids import MAX_NODE_ID, check_data_id, check_node_id
from dorad.logs.paths import MAX_ROTATED, current_name, rotated_names
from tests.dataflow.reading import error, path_node, problem, unhurried

_WORD = st.text(string.ascii_letters + string.digits + "_-.", min_size=1)


@unhurried
@given(_WORD.filter(lambda word: not word.startswith(".") and word != "dora"))
def test_letters_digits_and_three_signs_name_a_node(word: str) -> None:
    check_node_id(word)


@unhurried
@given(st.lists(_WORD, min_size=1))
def test_parts_with_slashes_between_name_an_input(parts: list[str]) -> None:
    check_data_id("/".join(parts))


@pytest.mark.parametrize("text", ["", ".a", "..", "dora", "a/b", "a b", "é", "a\n", "a:b", "a\0"])
def test_not_a_node_id(text: str) -> None:
    with pytest.raises(TextError):
        check_node_id(text)


@pytest.mark.parametrize("text", ["", "/", "/a", "a/", "a//b", "a b", "é", "a\n", "a:b"])
def test_not_a_data_id(text: str) -> None:
    with pytest.raises(TextError):
        check_data_id(text)


def test_ids_that_dora_accepts_are_accepted() -> None:
    node = path_node("inputs: {v1/chat/completions: dora/timer/secs/1}\noutputs: [.a, '..', -x]")
    assert node.inputs[0].id == "v1/chat/completions"
    assert node.outputs == (".a", "..", "-x")


def test_the_longest_node_id_still_has_log_files(tmp_path: Path) -> None:
    longest = "a" * MAX_NODE_ID
    check_node_id(longest)
    for name in (current_name(longest), rotated_names(longest, MAX_ROTATED)[-1]):
        (tmp_path / name).touch()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "needs `id`"),
        ("''", "cannot be empty"),
        ("[a]", "must be text, not a list"),
        ("a/b", "`/` is not allowed in the node id `a/b`"),
        (".a", "the node id `.a` starts with a dot"),
        ("dora", "the node id `dora` is reserved"),
        ("a" * 201, "has 201 characters"),
    ],
)
def test_an_invalid_node_id_is_reported_with_line_and_column(written: str, message: str) -> None:
    found = problem(f"nodes:\n  - path: x\n    id: {written}\n")
    assert found.line == 3
    assert message in found.message


def test_bad_ids_of_ports() -> None:
    assert error("outputs: [ok, a b]") == (
        "outputs[1]: ` ` is not allowed in the id `a b`"
        " (letters, digits, `_`, `-`, `.` and `/` between parts)"
    )
    assert "empty part" in error("inputs: {/a: dora/timer/secs/1}")
