"""What a receiver that stands still costs another receiver of the same output.

It is compared with a dataflow that has no such receiver, and with one that receives: a receiver
that runs keeps the processors awake, which makes the other one faster where waking them is slow.
"""

import os
import signal
import statistics
import time
from typing import Any, NamedTuple

from dorad.control.client import Client
from dorad.control.errors import ControlError
from hwtests.bench.process import MeasurementError
from hwtests.link.ours import NODES, Pair

SIZE = 64 << 10
ROUNDS = 3
TURNS = 3
"""Of each round, for each state of the receiver."""
SECONDS = 1.2
SETTLE_S = 0.3
WARM_S = 2.0


class Stopped(NamedTuple):
    """Messages per second that the other receiver gets: medians of turns that alternate."""

    without: float
    """There is no other receiver."""
    running: float
    """The other one receives as well."""
    stopped: float
    """The other one stands still."""

    @property
    def cost(self) -> float:
        """Which part of the messages is lost to a stopped receiver, compared with none."""
        return 1 - self.stopped / self.without

    def words(self) -> str:
        """Return the figures as a part of a sentence."""
        return (
            f"{self.stopped:,.0f} messages/s while it stands still, {self.without:,.0f} in a "
            f"dataflow without it ({-self.cost:+.1%}), and {self.running:,.0f} while it receives, "
            f"too ({self.stopped / self.running - 1:+.1%})"
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
    without: list[float] = []
    running: list[float] = []
    stopped: list[float] = []
    for _ in range(ROUNDS):
        alone = _dataflow(beside=False)
        with pair.running(alone, {"sender": "one", "quick": "two"}, scheme) as (run_id, clients):
            time.sleep(WARM_S)
            without += (_rate(clients["two"], run_id) for _ in range(TURNS))
        placement = {"sender": "one", "quick": "two", "stopped": "two"}
        with pair.running(_dataflow(beside=True), placement, scheme) as (run_id, clients):
            time.sleep(WARM_S)
            pid = _pid(clients["two"], run_id)
            for _ in range(TURNS):
                running.append(_rate(clients["two"], run_id))
                os.kill(pid, signal.SIGSTOP)
                try:
                    stopped.append(_rate(clients["two"], run_id))
                finally:
                    os.kill(pid, signal.SIGCONT)
    return Stopped(*map(statistics.median, (without, running, stopped)))


def _pid(client: Client, run_id: str) -> int:
    """Return the process of the receiver that is to be stopped."""
    pid = next((node.pid for node in client.nodes(run_id) if node.node == "stopped"), None)
    if not pid:
        raise MeasurementError("the receiver that is to be stopped does not run")
    return pid


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


def _dataflow(*, beside: bool) -> dict[str, Any]:
    """Return the dataflow, with the receiver that is stopped or without it."""
    wait = {"source": "sender/out", "queue_size": 16, "queue_policy": "backpressure"}
    drop = {"source": "sender/out", "queue_size": 16}
    sink = {"path": f"{NODES}/sink.py"}
    stopped = [{"id": "stopped", **sink, "inputs": {"x": drop}}] if beside else []
    return {
        "nodes": [
            {
                "id": "sender",
                "path": f"{NODES}/sender.py",
                "args": f"{10**9} {SIZE} 0",
                "outputs": ["out"],
            },
            {"id": "quick", **sink, "inputs": {"x": wait}},
            *stopped,
        ]
    }
