"""What the daemon reads of the hop records of nodes: bounded, over a restart, and failures."""

import itertools
import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.control.messages import Trace
from dorad.daemon.broker.broker import Emitter
from dorad.daemon.broker.hopreader import HopReader
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.segments import Segments
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.broker.stats import Stats
from dorad.daemon.storing import Changes
from dorad.daemon.tracer import LONGEST_S, SHORTEST_S, Tracer, interval
from dorad.dataflow.model import Input, NodeOutput
from dorad.launch.host import NoStore
from dorad.shm import hops
from dorad.shm.layout import HOPS
from dorad.trace.store import RecordBudget, TraceStore
from tests.daemon.flows import dataflow, node
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, seen, write_flow
from tests.harness.waiting import wait_until


def traces(dorad: Daemon, **query: object) -> list[Trace]:
    with dorad.client() as client:
        return client.traces(**{"limit": 10_000, "spans": True, **query}).traces  # type: ignore[arg-type]


def test_a_restarted_daemon_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    with daemon() as dorad:
        dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
        wait_until(lambda: len(seen(tmp_path)) > 20)
        before = traces(dorad)
        assert before
        dorad.kill()
        killed_at = time.time()
        mark = len(seen(tmp_path))
        wait_until(lambda: len(seen(tmp_path)) > mark + 20)
        dorad.start()
        with dorad.client() as client:
            answer = client.traces("flow", limit=10_000, spans=True)
        # Also of the time without a daemon: the rings of the nodes hold seconds of it.
        first = min(trace.start for trace in answer.traces)
        assert first < killed_at + 0.5
        assert answer.counts.overwritten == answer.counts.damaged == 0
        whole = [
            trace
            for trace in answer.traces
            if all(span.done for span in trace.spans) and len(trace.spans) == 2
        ]
        assert {trace.path for trace in whole} == {"source/tick → source → sink"}
        dorad.dora_ok("stop", "flow")
        # A dataflow that has ended is explained, too.
        ended = traces(dorad, dataflow="flow")
        assert ended
        assert not any(trace.running for trace in ended)
        with dorad.client() as client:
            (path,) = client.trace_paths("flow").paths
        assert path.count >= len(whole)


FAILS = """
    import os, pathlib, signal
    from dora import Node

    for event in Node():
        if event["type"] == "INPUT":
            print(len(event["value"]))
            os.kill(os.getpid(), signal.SIGKILL)
"""
SENDS = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", pa.array([1]))
"""


def test_the_message_that_a_node_was_killed_with_has_failed(tmp_path: Path) -> None:
    nodes = [
        {"id": "a", "path": "a.py", "inputs": {"tick": "dora/timer/millis/100"},
         "outputs": ["out"]},
        {"id": "b", "path": "b.py", "inputs": {"in": "a/out"}, "restart_policy": "always",
         "restart_delay": 0.2},
    ]  # fmt: skip
    file = write_flow(tmp_path, nodes, a=SENDS, b=FAILS)
    with daemon() as dorad:
        dorad.dora_ok("start", file, "--name", "flow", "--detach")
        wait_until(lambda: [trace for trace in traces(dorad, troubled=True) if trace.failed])
        (trace, *_) = [trace for trace in traces(dorad, troubled=True) if trace.failed]
        (failed,) = [span for span in trace.spans if span.outcome == "failed"]
        assert (failed.topic, failed.node, failed.input) == ("a/out", "b", "in")
        assert failed.received is not None and failed.done is None


def test_above_its_budget_a_daemon_reads_in_turns() -> None:
    budget = RecordBudget(rate=1000)
    read = 0
    allowed = []
    for number in range(1000):
        now = 5.0 + number / 100
        if budget.allows(now):
            budget.spend(50)
            read += 50
        allowed.append(budget.allows(now))
    assert 9_000 <= read <= 12_000  # in ten seconds
    changes = sum(before != after for before, after in itertools.pairwise(allowed))
    assert 10 <= changes <= 45  # turns of about half a second
    assert budget.allows(1000.0)


@pytest.mark.parametrize(
    ("busiest", "seconds", "expected"),
    [
        (0, 1.0, LONGEST_S),
        (3, 0.5, LONGEST_S),
        (HOPS, 0.5, 0.5 / 3),
        (HOPS * 100, 0.5, SHORTEST_S),
    ],
)
def test_a_busy_node_is_read_before_its_ring_is_full(
    busiest: int, seconds: float, expected: float
) -> None:
    assert interval(busiest, seconds) == pytest.approx(expected)


@pytest.mark.parametrize("limited", [False, True])
def test_records_of_a_node_are_read_or_counted(limited: bool) -> None:
    dataflow_ = dataflow(replace(node("b"), inputs=(Input("x", NodeOutput("a", "out"), 10),)))
    state = BrokerState(dataflow_, "flow", NoStore(), Changes(), {})
    box = state.mailboxes["b"] = Mailbox(dataflow_.nodes[0])
    with closing(box):
        store = TraceStore()
        if limited:
            store.budget.spend(10**9)
        tracer = Tracer(
            "flow",
            HopReader(state),
            Emitter(state, Segments(state)),
            Stats(state),
            store,
            lambda _node: False,
        )
        words, ring = box._mapping.words, box.rings["x"].plan.base
        writer = hops._Writer()
        for number in range(HOPS + 100):
            writer.received(words, ring, number, number + 1, 0)
        assert tracer.read() == HOPS + 100
        expected = (0, 0, HOPS + 100) if limited else (HOPS, 100, 0)
        counts = tracer.counts
        assert (counts.records, counts.overwritten, counts.skipped) == expected
        # What a client asks for is read in any case.
        writer.received(words, ring, 9999, 10_000, 0)
        tracer.read(wanted=True)
        assert tracer.counts.records == counts.records + 1
        # A daemon that adopts the mailbox goes on there.
        kept = [os.dup(each) for each in (box.memory, box.bell, box.space)]
        with closing(Mailbox.adopt(box.node, kept, box.snapshot())) as again:
            assert again.unread_hops == 0
