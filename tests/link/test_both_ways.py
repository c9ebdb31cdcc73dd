"""Two links with messages both ways over real Zenoh, which is cut and whose receivers stand still.

Every schedule ends with the same demand: on edges that keep messages nothing is lost or out of
order; on the others exactly what the counters say.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dorad.daemon.broker.readings import EdgeCounters
from dorad.dataflow.model import LINK, Dataflow, QueuePolicy
from tests.daemon.clients import Program, Stage
from tests.daemon.flows import dataflow, node
from tests.link.links import (
    RECEIVER,
    SENDER,
    Connected,
    Link,
    Pair,
    Relay,
    lines,
    machines_of,
    with_policy,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

COUNT = 400
QUEUE = 8
STAND_S = 0.05
FLOODS = {"small": (8, 0.0), "large": (70_000, 0.0), "paced": (8, 0.001)}
"""Bytes of a message, and the pause between two."""


def flow(source: str, sink: str, policy: QueuePolicy) -> Dataflow:
    """Return one machine, whose node `source` sends to the other one, and `sink` receives."""
    receiver = with_policy(node(sink, x=f"{LINK}/out"), policy, QUEUE)
    return dataflow(
        node(source), with_policy(node(LINK, x=f"{source}/out"), policy, QUEUE), receiver
    )


def channels(own: str, other: str, machine: str, *, reliable: bool) -> dict[str, object]:
    out = {"name": f"{own}/out", "machine": machine, "input": "x", "reliable": reliable}
    return {
        "outgoing": [out],
        "incoming": [{"name": f"{other}/out", "machine": machine, "output": "out"}],
    }


async def connect(machines: Pair, *, reliable: bool) -> tuple[Link, Link]:
    alpha = machines.start_alpha(**channels("a", "b", "beta", reliable=reliable))
    beta = machines.start_beta(**channels("b", "a", "alpha", reliable=reliable))
    await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
    await beta.until(lambda: beta.peer("alpha").get("state") == "up")
    return alpha, beta


async def disturb(
    act: str, cable: Relay, programs: list[Program], links: tuple[Link, Link]
) -> None:
    """Cut the cable, or let something stand still for a moment."""
    if act == "cut":
        await cable.cut()
        await asyncio.sleep(STAND_S)
        await cable.heal()
        return
    stopped = {
        "receivers": [each.process for each in programs],
        "alpha": [links[0].process],
        "beta": [links[1].process],
    }[act]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STAND_S)
    for process in stopped:
        process.send_signal(signal.SIGCONT)


async def run(policy: QueuePolicy, kind: str, acts: list[str], folder: Path) -> None:
    """Flood both ways, disturb, and check what has arrived against what was counted."""
    keeps = policy is QueuePolicy.BACKPRESSURE
    size, pause = FLOODS[kind]
    out = {name: folder / f"{name}-out" for name in ("c", "d")}
    async with machines_of(flow("a", "d", policy), flow("b", "c", policy)) as machines:
        cable = await machines.cable()
        links = await connect(machines, reliable=keeps)
        alpha, beta = machines.alpha, machines.beta
        async with (
            Connected(beta, "c", RECEIVER, out["c"]) as first,
            Connected(alpha, "d", RECEIVER, out["d"]) as second,
            Program(alpha, "a", SENDER, COUNT, size, pause, folder / "a"),
            Program(beta, "b", SENDER, COUNT, size, pause, folder / "b"),
        ):
            for number, act in enumerate(acts):
                before = COUNT * number // (len(acts) + 1)
                await links[0].until(lambda before=before: len(lines(folder / "a")) >= before)
                await disturb(act, cable, [first, second], links)
            for name, source in (("c", "a"), ("d", "b")):
                await links[0].until(lambda source=source: len(lines(folder / source)) == COUNT)
                if keeps:
                    await links[0].until(lambda name=name: len(lines(out[name])) == COUNT)
            for on, name, other in ((beta, "c", alpha), (alpha, "d", beta)):
                edges = Edges(on, name, other, links[0] if on is beta else links[1])
                await links[0].until(lambda edges=edges, name=name: edges.at_rest(lines(out[name])))
                edges.check(lines(out[name]), keeps=keeps)


class Edges:
    """The edge to the link of one machine, and the one from the link of the other to a node."""

    def __init__(self, on: Stage, name: str, other: Stage, sender: Link) -> None:
        """`sender` is the link of the machine that sends."""
        self._ends = (other, LINK), (on, name)
        self._sender = sender

    def _counters(self) -> tuple[EdgeCounters, EdgeCounters]:
        first, second = (
            next(each for each in on.broker.stats.counters() if each.node == name)
            for on, name in self._ends
        )
        return first, second

    def at_rest(self, received: list[str]) -> bool:
        """Return True if all messages are delivered, dropped, or counted as lost."""
        first, second = self._counters()
        return (
            first.sent == COUNT == first.received + first.dropped
            and second.sent == second.received + second.dropped
            and second.received == len(received)
            and second.sent + self._lost(second) == first.received
        )

    def _lost(self, edge: EdgeCounters) -> int:
        """Return what was lost between the links.

        The receiver counts that with the next message. Behind the last one it knows of no loss, and
        only the sender counts it, whose status comes once a second.
        """
        (outgoing,) = self._sender.status()["outgoing"]
        return max(edge.lost, int(outgoing["lost"]))

    def check(self, received: list[str], *, keeps: bool) -> None:
        """Check the messages that a node has received against the counters."""
        numbers = [int(line.split()[0]) for line in received]
        assert all(line.split()[3] == "True" for line in received), "a torn message"
        assert numbers == sorted(set(numbers)), "out of order, or twice"
        first, second = self._counters()
        missing = first.dropped + second.dropped + self._lost(second)
        assert len(numbers) + missing == COUNT
        if keeps:
            assert missing == 0


acts = st.lists(st.sampled_from(("cut", "receivers", "alpha", "beta")), max_size=3)


@pytest.mark.parametrize("policy", [QueuePolicy.BACKPRESSURE, QueuePolicy.DROP_OLDEST])
@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(kind=st.sampled_from(sorted(FLOODS)), acts=acts)
def test_edges_both_ways_keep_their_promises_whatever_is_cut_or_stands_still(
    policy: QueuePolicy,
    kind: str,
    acts: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    asyncio.run(run(policy, kind, acts, tmp_path_factory.mktemp("both")))
