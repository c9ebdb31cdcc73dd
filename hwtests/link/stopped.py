"""What a receiver that stands still costs another receiver of the same output."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from hwtests.bench.process import MeasurementError
from hwtests.link.ours import NODES

if TYPE_CHECKING:
    from dorad.control.client import Client
    from hwtests.link.ours import Pair

SIZE = 64 << 10
SECONDS = 4.0
WARM_S = 2.0


class Stopped(NamedTuple):
    """Messages per second that the other receiver gets."""

    before: float
    after: float

    @property
    def cost(self) -> float:
        """Which part of them is lost while the first one stands still."""
        return 1 - self.after / self.before


def measure(pair: Pair, scheme: str = "tcp") -> Stopped:
    """Stop one of two receivers for a while.

    Raises:
        MeasurementError: a node does not run.
    """
    placement = {"sender": "one", "quick": "two", "stopped": "two"}
    with pair.running(_dataflow(), placement, scheme) as (run_id, clients):
        receiving = clients["two"]
        time.sleep(WARM_S)
        before = _rate(receiving, run_id)
        pid = next((node.pid for node in receiving.nodes(run_id) if node.node == "stopped"), None)
        if not pid:
            raise MeasurementError("the receiver that is to be stopped does not run")
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(WARM_S)
            after = _rate(receiving, run_id)
        finally:
            os.kill(pid, signal.SIGCONT)
    return Stopped(before, after)


def _rate(client: Client, run_id: str) -> float:
    begin, began = _received(client, run_id), time.monotonic()
    time.sleep(SECONDS)
    return (_received(client, run_id) - begin) / (time.monotonic() - began)


def _received(client: Client, run_id: str) -> int:
    for edge in client.top().edges:
        if (edge.dataflow, edge.target) == (run_id, "quick/x"):
            return edge.received
    raise MeasurementError("the edge of the quick receiver is not measured")


def _dataflow() -> dict[str, Any]:
    wait = {"source": "sender/out", "queue_size": 16, "queue_policy": "backpressure"}
    drop = {"source": "sender/out", "queue_size": 16}
    sink = {"path": f"{NODES}/sink.py"}
    return {
        "nodes": [
            {
                "id": "sender",
                "path": f"{NODES}/sender.py",
                "args": f"{10**9} {SIZE} 0",
                "outputs": ["out"],
            },
            {"id": "quick", **sink, "inputs": {"x": wait}},
            {"id": "stopped", **sink, "inputs": {"x": drop}},
        ]
    }
