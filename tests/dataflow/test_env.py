"""Environment variables: what values become, expansion, precedence, reserved names."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dorad.dataflow.env import escape, expand, float_text, is_reserved
from dorad.dataflow.errors import TextError
from tests.dataflow.reading import error, path_node, path_node_text, read, unhurried

_ENVIRON = {"HOME": "/root", "EMPTY": "", "A1": "one", "DOLLAR": "$HOME"}
_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("3", "3"),
        ("-0", "0"),
        ("0x10", "16"),
        ("007", "007"),
        ('"007"', "007"),
        ("1.5", "1.5"),
        ("1.50", "1.5"),
        ("1.0", "1"),
        ('"1.10"', "1.10"),
        ("1e3", "1000"),
        ("1e-7", "0.0000001"),
        (".inf", "inf"),
        (".nan", "NaN"),
        ("true", "true"),
        ("True", "true"),
        ('"true"', "true"),
        ("false", "false"),
        ("yes", "yes"),
        ('""', ""),
        ("$HOME/x", "/root/x"),
        ("é", "é"),
        ("99999999999999999999", "99999999999999999999"),
    ],
)
def test_the_text_a_process_sees(written: str, text: str) -> None:
    assert path_node(f"env: {{V: {written}}}", **_ENVIRON).env == {"V": text}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$HOME", "/root"),
        ("${HOME}", "/root"),
        ("a $HOME/b", "a /root/b"),
        ("$A1$HOME", "one/root"),
        ("$EMPTY", ""),
        ("${EMPTY:-d}", ""),
        ("${NOPE:-d}", "d"),
        ("${NOPE:-}", ""),
        ("${NOPE:-a b}c", "a bc"),
        ("${NOPE:-$HOME}", "/root"),
        ("${NOPE:-${NADA:-x}}", "x"),
        ("${NOPE:-{a}}", "{a}"),
        ("${HOME:-a}b}", "/rootb}"),
        ("${NOPE:-a$$b}", "a$b"),
        ("$$HOME", "$HOME"),
        ("$$$HOME", "$/root"),
        ("$DOLLAR", "$HOME"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$-a", "$-a"),
        ("$(ls)", "$(ls)"),
        ("$1x", "$1x"),
        ("100%$", "100%$"),
        ("\\$HOME", "\\/root"),
        ("~", "~"),
        ("{HOME}", "{HOME}"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, _ENVIRON) == expanded


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("$NOPE", "the environment variable `NOPE` is not set", "`${NOPE:-default}`"),
        ("x${NOPE}y", "the environment variable `NOPE` is not set", "`${NOPE:-default}`"),
        ("$HOME_x", "the environment variable `HOME_x` is not set", "`${HOME_x:-default}`"),
        ("${A:-${B}}", "the environment variable `B` is not set", "`${B:-default}`"),
        ("${HOME", "`${HOME` has no closing `}`", "write `$$`"),
        ("${}", "`${}` is not a variable", "`${NAME:-default}`"),
        ("${HOME-x}", "`${HOME-x}` is not a variable", "`${NAME:-default}`"),
        ("${1a}", "`${1a}` is not a variable", "`${NAME:-default}`"),
        ("${A:-" * 20 + "}" * 20, "defaults nested more than 8 deep", ""),
    ],
)
def test_texts_that_cannot_be_expanded(text: str, message: str, hint: str) -> None:
    with pytest.raises(TextError) as caught:
        expand(text, _ENVIRON)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")


@unhurried
@given(_TEXTS)
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    assert expand(escape(text), {}) == text


@unhurried
@given(_NAMES, _TEXTS, _TEXTS)
def test_a_value_is_inserted_unchanged(name: str, value: str, around: str) -> None:
    before = escape(around)
    assert expand(f"{before}${{{name}}}", {name: value}) == around + value
    assert expand(f"${name}", {name: value}) == value


@unhurried
@given(_NAMES, _TEXTS)
def test_a_default_replaces_an_unset_variable(name: str, default: str) -> None:
    assume("{" not in default)
    assume("}" not in default)
    assert expand(f"${{{name}:-{escape(default)}}}", {}) == default


@unhurried
@given(st.text())
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        expand(text, {"a": "b"})
    except TextError as error:
        assert "$" in text
        assert error.message


@unhurried
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_without_exponent_and_loses_nothing(number: float) -> None:
    text = float_text(number)
    assert float(text) == number
    assert "e" not in text
    assert math.copysign(1, float(text)) == math.copysign(1, number)


@pytest.mark.parametrize(
    ("number", "text"),
    [(1e21, "1" + "0" * 21), (1.2345678901234567e19, "12345678901234567000"), (-0.5, "-0.5")],
)
def test_floats_as_dora_writes_them(number: float, text: str) -> None:
    assert float_text(number) == text


def test_env_of_a_node_overrides_that_of_the_dataflow() -> None:
    flow = read("env: {A: 1, B: 2}\nnodes: [{id: a, path: x, env: {B: 3, C: 4}}, {id: b, path: y}]")
    assert flow.node("a").env == {"A": "1", "B": "3", "C": "4"}
    assert flow.node("a").own_env == {"B": "3", "C": "4"}
    assert flow.node("b").env == {"A": "1", "B": "2"}
    assert flow.node("b").own_env == {}


def test_the_descriptor_shows_the_expanded_text_and_keeps_numbers() -> None:
    flow = read(path_node_text("env: {A: $X, B: 3, C: true}"), X="x")
    assert flow.descriptor["nodes"][0]["env"] == {"A": "x", "B": 3, "C": True}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("env: {A: }", 'env.A: has no value (write "" for an empty text)'),
        ("env: {A: [1]}", "env.A: must be text, a number, true or false, not a list"),
        ("env: {A: {x: 1}}", "env.A: must be text, a number, true or false, not a mapping"),
        (
            "env: A=1",
            "env: must be a mapping of names to values, not `A=1` (write `env: {NAME: value}`)",
        ),
        ("env: {A=B: 1}", "env.A=B: `A=B` is not a valid variable name"),
        ("env: {'': 1}", "env.: `` is not a valid variable name"),
        ("env: {'A B': 1}", "env.A B: `A B` is not a valid variable name"),
        ('env: {A: "x\\0"}', "env.A: contains a NUL character"),
        (
            "env: {A: $NOPE}",
            (
                "env.A: the environment variable `NOPE` is not set"
                " (set it, or give a default: `${NOPE:-default}`)"
            ),
        ),
    ],
)
def test_mistakes(written: str, message: str) -> None:
    assert error(written) == message


@pytest.mark.parametrize(
    "name",
    [
        "DORA_NODE_CONFIG",
        "DORA_RUN_PARENT_PID",
        "DORA_AUTH_TOKEN",
        "DORA_ALLOW_SHELL_NODES",
        "ZENOH_CONFIG",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
    ],
)
def test_reserved_variables_are_dropped_with_a_warning(name: str) -> None:
    flow = read(path_node_text(f"env: {{A: 1, {name}: x}}"))
    assert is_reserved(name)
    assert flow.nodes[0].env == {"A": "1"}
    (warning,) = flow.warnings
    assert (warning.line, warning.key) == (4, f"nodes[0].env.{name}")
    assert f"`{name}` is reserved" in warning.message


def test_other_variables_of_dora_are_not_reserved() -> None:
    assert path_node("env: {DORA_TEST: 1, PATH: /x}").env == {"DORA_TEST": "1", "PATH": "/x"}
