"""The flat YAML of a dataflow parses back to the same dataflow."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.expand import flat_yaml
from dorad.dataflow.load import parse
from dorad.dataflow.model import QueuePolicy
from dorad.terminal import visible_lines
from tests.dataflow.reading import FILE, path_node_text, read, unhurried

_IDS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8).filter(
    lambda text: text != "dora"
)
_TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc", "Cn"]), max_size=20
) | st.sampled_from(["yes", "0o17", "1e3", "007", "~", "null", "1_000", ".inf", "$HOME", "${X:-a}"])
_VALUES = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS
_SECONDS = st.floats(0, 1e6)


@st.composite
def _nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = draw(st.lists(_IDS, min_size=1, max_size=4, unique=True))
    outputs = {name: draw(st.lists(_IDS, max_size=3, unique=True)) for name in ids}
    sources = [f"{name}/{output}" for name in ids for output in outputs[name]]
    sources += ["dora/timer/hz/30", "dora/timer/millis/100", "dora/logs/warn"]
    nodes = []
    for name in ids:
        node: dict[str, Any] = {"id": name, "path": draw(_IDS), "outputs": outputs[name]}
        node["inputs"] = {
            key: draw(
                st.sampled_from(sources)
                | st.fixed_dictionaries(
                    {"source": st.sampled_from(sources)},
                    optional={
                        "queue_size": st.integers(0, 1000),
                        "queue_policy": st.just(QueuePolicy.DROP_OLDEST.value),
                        "input_timeout": _SECONDS,
                    },
                )
            )
            for key in draw(st.lists(_IDS, max_size=3, unique=True))
        }
        node |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": _TEXTS,
                    "description": _TEXTS,
                    "args": st.just("--x 'a b' $HOME"),
                    "env": st.dictionaries(_IDS, _VALUES, max_size=3),
                    "build": st.just("make\npip install x"),
                    "cpu_affinity": st.lists(st.integers(0, 8), max_size=3),
                    "spin_us": st.integers(0, 1000),
                    "restart_policy": st.sampled_from(["never", "on-failure", "always"]),
                    "restart_delay": _SECONDS,
                    "deploy": st.fixed_dictionaries({"labels": st.dictionaries(_IDS, _TEXTS)}),
                },
            )
        )
        nodes.append(node)
    return nodes


def _dump(descriptor: dict[str, Any]) -> str:
    """JSON is YAML in which every text is quoted: no reader can take it for something else."""
    return json.dumps(descriptor, ensure_ascii=False)


@pytest.mark.long
@unhurried
@given(_nodes(), st.dictionaries(_IDS, _VALUES, max_size=3))
def test_flat_yaml_parses_back_to_an_equal_dataflow(
    nodes: list[dict[str, Any]], env: dict[str, Any]
) -> None:
    environ = {"HOME": "h$ome", "X": ""}
    for variables in (env, *(node.get("env", {}) for node in nodes)):
        for name, value in variables.items():
            if isinstance(value, str) and value not in ("$HOME", "${X:-a}"):
                variables[name] = value.replace("$", "$$")
    first = parse(_dump({"env": env, "nodes": nodes}), path=FILE, environ=environ)
    text = flat_yaml(first)
    assert parse(text, path=FILE, environ={}) == first
    assert flat_yaml(parse(text, path=FILE, environ={})) == text


def test_variables_are_expanded_once() -> None:
    text = flat_yaml(read(path_node_text("env: {A: $X, B: 3, C: '3'}\nargs: $X"), X="$Y"))
    assert "A: $$Y\n" in text
    assert "B: 3\n" in text
    assert "C: '3'\n" in text
    assert "args: $X\n" in text


@pytest.mark.parametrize(
    "hidden",
    [
        "\u200b",
        "\u202e",
        "\ufe0f",
        "\U000e0041",
        "\x1b[2J",
        "a" + 9 * "\u0301",
    ],
)
def test_a_character_that_hides_text_is_written_by_its_number(hidden: str) -> None:
    """Also in a key, in a text of several lines, and in one that YAML does not quote."""
    env = {f"k{hidden}": "v", "A": f"é{hidden}", "B": f"1\n\t{hidden}\n2 'x\"", "C": "é'ü\n"}
    first = read(_dump({"nodes": [{"id": "a", "path": "x", "name": f"n{hidden}", "env": env}]}))
    text = flat_yaml(first)
    assert visible_lines(text) == text
    assert "é" in text
    assert parse(text, path=FILE, environ={}) == first


def test_aliases_are_written_out() -> None:
    flow = read("nodes:\n- {id: a, path: x, env: &e {A: 1}}\n- {id: b, path: x, env: *e}")
    text = flat_yaml(flow)
    assert "&" not in text
    assert "*" not in text


def test_keys_keep_their_order() -> None:
    text = flat_yaml(read("nodes:\n- path: x\n  outputs: [z, a]\n  id: n\nenv: {}"))
    assert text == "nodes:\n- path: x\n  outputs:\n  - z\n  - a\n  id: n\nenv: {}\n"
