"""How long a call may take."""

import pytest

from dorad.control import messages as m


@pytest.mark.parametrize(
    ("method", "params", "seconds"),
    [
        (m.DATAFLOW_LIST, m.Nothing(), 60),
        (m.DATAFLOW_WAIT, m.Wait(dataflow="x"), None),
        (m.DATAFLOW_WAIT, m.Wait(dataflow="x", timeout=100), 160),
        (m.DATAFLOW_STOP, m.Stop(), 75),
        (m.DATAFLOW_STOP, m.Stop(grace=0), 60),
        (m.DATAFLOW_RESTART, m.Stop(grace=100), 210),
        (m.DATAFLOW_RESTART, m.Stop(grace=100, force=True), 60),
        (m.NODE_STOP, m.NodeStop(node="a", grace=20), 120),
        (m.NODE_REPLACE, m.NodeReplace(node="a", definition={}), 105),
        (m.NODE_ADD, m.NodeAdd(definition={}), 90),
        (m.NODE_CONNECT, m.EdgeNew(source="a/x", target="b/x"), 90),
        (m.NODE_DISCONNECT, m.EdgeRef(source="a/x", target="b/x"), 90),
    ],
)
def test_the_time_a_call_may_take_includes_the_time_it_requests(
    method: m.AnyMethod, params: m.Struct, seconds: float | None
) -> None:
    assert method.time_allowed(params, 60) == seconds
