"""How long a call may take."""

from __future__ import annotations

import pytest

from dorad.control import messages as m
from dorad.control.limits import time_allowed


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        (m.Nothing(), 60),
        (m.Wait(dataflow="x"), None),
        (m.Wait(dataflow="x", timeout=100), 160),
        (m.Stop(), 75),
        (m.Stop(grace=0), 60),
        (m.Stop(grace=100), 210),
        (m.Stop(grace=100, force=True), 60),
        (m.NodeStop(node="a", grace=20), 120),
        (m.NodeReplace(node="a", definition={}), 105),
        (m.NodeAdd(definition={}), 90),
        (m.EdgeNew(source="a/x", target="b/x"), 90),
        (m.EdgeRef(source="a/x", target="b/x"), 90),
    ],
)
def test_the_time_a_call_may_take_includes_the_time_it_requests(
    params: m.Struct, seconds: float | None
) -> None:
    assert time_allowed(params, 60) == seconds
