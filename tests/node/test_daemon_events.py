"""Packets of the daemon as events of a node."""

from typing import Any

from dorad.node.daemonevents import DaemonEvents
from dorad.node.params import Params
from dorad.node.protocol import Packet


def test_a_restart_that_a_new_daemon_repeats_is_no_second_event() -> None:
    events = DaemonEvents([], Params({}))

    def restarted(**fields: Any) -> int:
        events.handle(Packet("restarted", {"node": "a", **fields}))
        return events.restarts["a"]

    assert restarted(count=1) == 1
    assert restarted() == 2, "its policy has restarted it"
    assert restarted(count=1) == 2
    assert restarted(count=3) == 3
    assert len(events.urgent) == 3
