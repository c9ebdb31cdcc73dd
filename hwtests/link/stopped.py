"""What a receiver that stands still costs another receiver of the same output."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.control.errors import ControlError
from hwtests.bench.process import MeasurementError
from hwtests.link.ours import NODES

if TYPE_CHECKING:
    from dorad.control.client import Client
    from hwtests.link.ours import Pair

SIZE = 64 << 10
TURNS = 8
SECONDS = 1.5
SETTLE_S = 0.3
WARM_S = 2.0


class Stopped(NamedTuple):
    """Messages per second that the other receiver gets: medians of turns that alternate."""

    usual: float
    meanwhile: float
    """While the first one stands still."""

    @property
    def cost(self) -> float:
        """Which part of them is lost meanwhile."""
        return 1 - self.meanwhile / self.usual

    def words(self) -> str:
        """Return the figures as a part of a sentence."""
        return (
            f"{self.usual:,.0f} messages/s usually, and {self.meanwhile:,.0f} while it stands "
            f"still ({-self.cost:+.1%})"
        )


def measure(pair: Pair, scheme: str = "tcp") -> Stopped:
    """Stop one of two receivers for a while.

    Raises:
        MeasurementError: a node does not run, or the dataflow does not start.
    """
    try:
        return _measure(pair, scheme)
    except ControlError as error:
        raise MeasurementError(str(error)) from error


def _measure(pair: Pair, scheme: str) -> Stopped:
    placement = {"sender": "one", "quick": "two", "stopped": "two"}
    with pair.running(_dataflow(), placement, scheme) as (run_id, clients):
        receiving = clients["two"]
        time.sleep(WARM_S)
        pid = next((node.pid for node in receiving.nodes(run_id) if node.node == "stopped"), None)
        if not pid:
            raise MeasurementError("the receiver that is to be stopped does not run")
        usual, meanwhile = [], []
        for _ in range(TURNS):
            usual.append(_rate(receiving, run_id))
            os.kill(pid, signal.SIGSTOP)
            try:
                meanwhile.append(_rate(receiving, run_id))
            finally:
                os.kill(pid, signal.SIGCONT)
        return Stopped(statistics.median(usual), statistics.median(meanwhile))


def _rate(client: Client, run_id: str) -> float:
    time.sleep(SETTLE_S)
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
