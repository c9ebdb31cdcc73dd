"""What rerun shows of each type."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from dorad.problems import ProblemError
from dorad.view.rerun import RerunView, viewable
from tests.view.test_foxglove import POSE, Source


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, 2], pa.int8()), {"": [1.0, 2.0]}),
        (pa.array([True, None]), {"": [1.0, float("nan")]}),
        (POSE, {"/x": [1.5], "/name": "arm"}),
        (pa.array([{"p": {"q": [1, 2]}}]), {"/p/q": [1.0, 2.0]}),
        (pa.array([[1], [2]]), {"": "[1]\n[2]"}),
        (pa.RunEndEncodedArray.from_arrays([10**8], ["x"]), None),
    ],
    ids=str,
)
def test_numbers_are_plotted_and_the_rest_is_text(array, expected):
    shown = {
        path: values.tolist() if isinstance(values, np.ndarray) else values
        for path, values in viewable(array)
    }
    if expected is None:
        expected = {"": f"{len(array)} x {array.type}"}
    assert str(shown) == str(expected)


async def test_without_rerun_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ProblemError, match=r"pip install 'dorad\[view\]'"):
        RerunView(Source(), lambda _: True, name="demo")
