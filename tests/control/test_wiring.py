"""The names of topics."""

from __future__ import annotations

import pytest

from dorad.control.wiring import topic_named
from tests.dataflow.reading import read

_FLOW = """
nodes:
  - {id: plain, path: x, outputs: [o, op/o]}
  - {id: one, operator: {python: x.py, outputs: [o]}}
  - {id: named, operator: {id: detect, python: x.py, outputs: [o, detect/o]}}
  - {id: some, operators: [{id: a, python: x.py, outputs: [o]}]}
"""


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("plain/o", "o"),
        ("plain/op/o", "op/o"),
        ("plain/x", None),
        ("one/o", "op/o"),
        ("one/op/o", "op/o"),
        ("one/op/x", None),
        ("named/o", "detect/o"),
        ("named/detect/o", "detect/o"),
        ("named/op/o", None),
        ("some/a/o", "a/o"),
        ("some/o", None),
        ("none/o", None),
        ("one", None),
        ("", None),
    ],
)
def test_a_topic_has_the_name_that_inputs_of_the_file_use(name: str, output: str | None) -> None:
    found = topic_named(read(_FLOW), name)
    assert (found and found.output) == output
