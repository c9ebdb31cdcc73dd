"""A trace context of OpenTelemetry in the metadata of a message survives a link."""

import time
from functools import partial

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from dorad.dataflow.model import LINK, QueuePolicy
from dorad.telemetry.resources import Resources
from dorad.telemetry.spans import spans_of
from dorad.trace.build import as_trace
from dorad.trace.join import Joiner
from tests.daemon.clients import Program
from tests.daemon.flows import dataflow, node
from tests.link.links import RECEIVER, Connected, lines, machines_of, with_policy

pytestmark = pytest.mark.long

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
COUNT = 20
SENDER = f"""
import sys, time
import pyarrow as pa
from dora import Node
context = "00-{TRACE:032x}-{SPAN:016x}-01"
kinds = [{{"traceparent": context}}, {{"open_telemetry_context": f"traceparent:{{context}};"}}]
node = Node()
for number in range({COUNT}):
    metadata = dict(kinds[number % 2], number=number, name="frame")
    node.send_output("out", pa.array([number] * 10, type=pa.int64()), metadata)
    if number > {COUNT // 2}:
        time.sleep(0.02)  # then the link sleeps, and sends and delivers in other threads
node.next(timeout=30)
"""


class Records:
    """The hop records of the nodes of one machine."""

    def __init__(self, broker) -> None:
        self._hops = broker.hops
        self._joiner = Joiner()

    def spans(self) -> list[ReadableSpan]:
        """Return the spans of all traces, by name of the operation and topic."""
        for name in self._hops.unread():
            places, hops = self._hops.places(name), self._hops.read(name)
            self._joiner.add(name, places, hops, time.monotonic_ns())
        assert self._joiner.unknown == self._joiner.contexts == self._hops.damaged == 0
        resources = Resources(Resource({}))
        trees = self._joiner.present(10 * COUNT)
        return [span for tree in trees for span in spans_of(as_trace(tree, "flow"), resources)]


async def test_both_ends_of_a_link_have_the_trace_of_the_context_and_one_way_through_it(tmp_path):
    out = tmp_path / "b"
    room = partial(with_policy, policy=QueuePolicy.BACKPRESSURE, size=COUNT)
    first = dataflow(node("a"), room(node(LINK, x="a/out")))
    # As on robots, an output has the same name at both ends.
    second = dataflow(node(LINK), room(node("b", x=f"{LINK}/a/out")))
    async with machines_of(first, second) as machines:
        alpha, beta = machines.start_alpha(), machines.start_beta(channel={"output": "a/out"})
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER),
        ):
            await beta.until(lambda: len(lines(out)) == COUNT)
            ends = [Records(each.broker) for each in (machines.alpha, machines.beta)]

            def of(end: Records, operation: str) -> dict[int, ReadableSpan]:
                spans = [span for span in end.spans() if span.name == f"{operation} a/out"]
                return {span.context.span_id: span for span in spans}

            await beta.until(lambda: len(of(ends[1], "receive")) == COUNT)
            sent, received = of(ends[0], "send"), of(ends[1], "receive")
            assert len(sent) == COUNT
            assert {span.parent.span_id for span in received.values()} == set(sent)
            everything = [*ends[0].spans(), *ends[1].spans()]
            assert {span.context.trace_id for span in everything} == {TRACE}
            assert {span.parent.span_id for span in sent.values()} == {SPAN}
            assert not of(ends[1], "send"), "the sender's machine has that span"
