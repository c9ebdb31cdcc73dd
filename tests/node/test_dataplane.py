"""The data plane under `dora run`: order, queues, back-pressure, waiting."""

import itertools
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.dataflow import Flow

WAIT_FOR = """
import pathlib
import time

def wait_for(name):
    deadline = time.monotonic() + 20
    while not pathlib.Path(name).exists():
        assert time.monotonic() < deadline, f"no node has made {name} was not created"
        time.sleep(0.002)

def make(name):
    pathlib.Path(name).touch()
"""

COLLECT = """
    from dora import Node
    from probe import report
    for event in Node():
        if event["type"] == "INPUT":
            report(event["metadata"]["number"])
"""


@pytest.fixture
def flow(flow: Flow) -> Flow:
    """A dataflow whose nodes can wait for each other through files."""
    (flow.folder / "meeting.py").write_text(WAIT_FOR, encoding="utf-8")
    return flow


def blocking(source: str, queue_size: int) -> dict[str, object]:
    return {"source": source, "queue_size": queue_size, "queue_policy": "backpressure"}


@pytest.mark.parametrize("size", [8, 100_000])
def test_backpressure_slows_the_sender_to_the_receiver_and_drops_nothing(
    flow: Flow, size: int
) -> None:
    flow.node(
        "sender",
        f"""
        import time
        from dora import Node
        from probe import report
        node = Node()
        begun = time.monotonic()
        for number in range(60):
            node.send_output("out", bytes({size}), {{"number": number}})
        report(time.monotonic() - begun)
        """,
        outputs=["out"],
    ).node(
        "slow",
        """
        import time
        from dora import Node
        from probe import report
        for event in Node():
            if event["type"] == "INPUT":
                report(event["metadata"]["number"])
                time.sleep(0.01)
        """,
        inputs={"x": blocking("sender/out", 4)},
    ).run().expect(0)
    assert flow.reports("slow") == list(range(60))
    assert flow.reports("sender")[0] > (60 - 4 - 1) * 0.01


def test_backpressure_on_one_input_does_not_stop_others_from_keeping_the_newest(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        node = Node()
        for number in range(300):
            node.send_output("out", bytes(8), {"number": number})
        """,
        outputs=["out"],
    ).node("all", COLLECT, inputs={"x": blocking("sender/out", 2)}).node(
        "some", COLLECT, inputs={"x": {"source": "sender/out", "queue_size": 2}}
    ).run().expect(0)
    assert flow.reports("all") == list(range(300))
    some = flow.reports("some")
    assert some == sorted(some)
    assert some[-1] == 299


def test_stop_releases_a_sender_that_waits_for_room(flow: Flow) -> None:
    outcome = (
        flow.node(
            "sender",
            """
            from dora import Node
            from meeting import make
            from probe import report
            node = Node()
            for number in range(3):
                report(number)
                node.send_output("out", bytes(8), {"number": number})
            make("released")
            report(node.next()["id"])
            """,
            outputs=["out"],
        )
        .node(
            "idle",
            """
            from dora import Node
            from meeting import wait_for
            node = Node()
            wait_for("released")
            """,
            inputs={"x": blocking("sender/out", 2)},
        )
        .run(stop_after=8)
    )
    outcome.expect(0)
    assert flow.reports("sender") == [0, 1, 2, "MANUAL"]


def test_the_end_of_a_receiver_releases_a_sender_that_waits_for_room(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import time
        from dora import Node
        from meeting import make
        from probe import report
        node = Node()
        for number in range(3):
            if number == 2:
                make("full")
            begun = time.monotonic()
            node.send_output("out", bytes(8), {"number": number})
        report(time.monotonic() - begun)
        """,
        outputs=["out"],
    ).node(
        "leaves",
        """
        import os, time
        from dora import Node
        from meeting import wait_for
        node = Node()
        wait_for("full")
        time.sleep(0.3)
        os._exit(0)
        """,
        inputs={"x": blocking("sender/out", 2)},
    ).run().expect(0)
    assert 0.2 < flow.reports("sender")[0] < 20


def test_a_queue_of_one_gives_a_slow_receiver_the_newest_message(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import time
        from dora import Node
        from probe import report
        node = Node()
        begun = time.monotonic()
        for number in range(120):
            time.sleep(max(0, begun + number * 0.02 - time.monotonic()))
            node.send_output("out", bytes(8), {"number": number})
            report(time.monotonic_ns())
        """,
        outputs=["out"],
    ).node(
        "slow",
        """
        import time
        from dora import Node
        from probe import report
        node = Node()
        asked = time.monotonic_ns()
        while (event := node.next()) is not None:
            if event["type"] == "INPUT":
                report([event["metadata"]["number"], asked])
                time.sleep(0.05)
            asked = time.monotonic_ns()
        """,
        inputs={"x": {"source": "sender/out", "queue_size": 1}},
    ).run().expect(0)
    sent = flow.reports("sender")
    received = flow.reports("slow")
    assert 10 < len(received) < 120
    for number, asked in received:
        # There was no newer message at that time.
        assert number == 119 or sent[number + 1] >= asked


def test_async_waiting_uses_no_cpu_and_blocks_no_task(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from meeting import wait_for
        node = Node()
        wait_for("waited")
        node.send_output("out", bytes(8), {"number": 1})
        """,
        outputs=["out"],
    ).node(
        "receiver",
        """
        import asyncio, time
        from dora import Node
        from meeting import make
        from probe import report

        async def main():
            node = Node()
            turns = 0

            async def turn():
                nonlocal turns
                while True:
                    await asyncio.sleep(0.1)
                    turns += 1

            turning = asyncio.ensure_future(turn())
            # Of this thread alone: numpy's own threads spin for a moment after its import.
            before = time.thread_time()
            nothing = await node.recv_async(timeout=1.0)
            report({"cpu": time.thread_time() - before, "turns": turns, "type": nothing["type"]})
            make("waited")
            report((await node.recv_async())["metadata"]["number"])
            turning.cancel()

        asyncio.run(main())
        """,
        inputs={"x": "sender/out"},
    ).run().expect(0)
    waited, number = flow.reports("receiver")
    assert waited["type"] == "ERROR"  # a time-out, as in dora
    assert waited["cpu"] < 0.05
    assert waited["turns"] >= 2
    assert number == 1


def test_two_concurrent_dataflows_do_not_exchange_messages(tmp_path: Path) -> None:
    def run(name: str) -> list[object]:
        folder = tmp_path / name
        folder.mkdir()
        flow = Flow(folder)
        flow.node(
            "sender",
            f"""
            from dora import Node
            node = Node()
            for number in range(300):
                node.send_output("out", bytes(20_000), {{"number": f"{name} {{number}}"}})
            """,
            outputs=["out"],
        ).node("receiver", COLLECT, inputs={"x": blocking("sender/out", 5)}).run().expect(0)
        return flow.reports("receiver")

    names = ("left", "right")
    with ThreadPoolExecutor() as pool:
        for name, received in zip(names, pool.map(run, names), strict=True):
            assert received == [f"{name} {number}" for number in range(300)]


def test_a_timer_of_one_millisecond_keeps_its_rate(flow: Flow) -> None:
    flow.node(
        "ticked",
        """
        import time
        from dora import Node
        from probe import report
        node = Node()
        due, late = [], []
        while len(due) < 1500:
            event = node.next()
            if event["type"] == "INPUT":
                due.append(event["metadata"]["timestamp"].timestamp())
                late.append(time.time() - due[-1])
        report([due, late])
        """,
        inputs={"tick": {"source": "dora/timer/millis/1", "queue_size": 1000}},
    ).run().expect(0)
    ((due, late),) = flow.reports("ticked")
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert statistics.median(gaps) == pytest.approx(0.001, rel=0.1)
    # A busy machine takes ticks late; they wait in the queue, and none comes before it is due.
    assert statistics.fmean(gaps) == pytest.approx(0.001, rel=0.1)
    assert min(late) > -0.001
