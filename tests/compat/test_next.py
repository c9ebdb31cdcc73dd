"""`next`, iteration, `try_recv` and `drain`: results in time, after a timeout, and at the end."""

from tests.harness.dataflow import Flow

ONE = """
    import pyarrow as pa
    from dora import Node

    Node().send_output("out", pa.array([1]))
"""


def test_a_timeout_returns_an_error_event_and_not_none(flow: Flow) -> None:
    flow.node(
        "waiter",
        """
        import time
        from dora import Node
        from probe import report

        node = Node()
        assert node.next()["type"] == "INPUT"  # a timer's first tick is immediate
        for wait in (lambda: node.next(timeout=0.2), lambda: node.next(0.2)):
            started = time.monotonic()
            event = wait()
            report([event["kind"], event["type"], event["error"], time.monotonic() - started])
            report(sorted(event))
        """,
        inputs={"tick": "dora/timer/secs/60"},
    )
    flow.run(stop_after=10).expect(0)
    reports = flow.reports("waiter")
    assert len(reports) == 4
    for (kind, type_, error, seconds), keys in zip(reports[::2], reports[1::2], strict=True):
        assert (kind, type_) == ("dora", "ERROR")
        assert error.startswith("Timeout event stream error")
        assert 0.19 <= seconds < 20
        assert set(keys) <= {"kind", "type", "error", "id"}


def test_an_invalid_timeout_is_refused(flow: Flow) -> None:
    flow.node(
        "waiter",
        """
        from dora import Node
        from probe import report

        node = Node()
        for timeout in (-1.0, float("nan"), float("inf")):
            try:
                node.next(timeout=timeout)
            except ValueError:
                report("refused")
        """,
        inputs={"tick": "dora/timer/secs/60"},
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("waiter") == ["refused"] * 3


def test_after_the_last_event_next_always_returns_none(flow: Flow) -> None:
    flow.node("source", ONE, outputs=["out"])
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        node = Node()
        for event in node:
            report([event["type"], event["id"]])
        for step in (node.next, node.next, lambda: node.next(timeout=0.1), node.try_recv):
            report(step())
        report(list(node))
        """,
        inputs={"in": "source/out"},
    )
    flow.run().expect(0)
    assert flow.reports("sink") == [
        ["INPUT", "in"],
        ["INPUT_CLOSED", "in"],
        ["STOP", "ALL_INPUTS_CLOSED"],
        *[None] * 4,
        [],
    ]


def test_draining_an_ended_stream_raises(flow: Flow) -> None:
    flow.node("source", ONE, outputs=["out"])
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        node = Node()
        while node.next() is not None:
            pass
        try:
            node.drain()
        except RuntimeError as error:
            report(str(error))
        """,
        inputs={"in": "source/out"},
    )
    flow.run().expect(0)
    [error] = flow.reports("sink")
    assert "closed" in error.lower()


def test_try_recv_and_drain_never_wait(flow: Flow) -> None:
    flow.node(
        "poller",
        """
        import time
        from dora import Node
        from probe import report

        node = Node()
        assert node.next()["id"] == "tick"
        started = time.monotonic()
        report([node.try_recv(), node.drain()])
        report(time.monotonic() - started)
        """,
        inputs={"tick": "dora/timer/secs/60"},
    )
    flow.run(stop_after=10).expect(0)
    nothing, seconds = flow.reports("poller")
    assert nothing == [None, []]
    assert seconds < 20


def test_drain_returns_all_queued_events_in_order(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(5):
            node.send_output("out", pa.array([number]))
        node.send_output("done", pa.array([0]))
        for event in node:
            if event["type"] == "INPUT":
                break
        """,
        inputs={"drained": "sink/drained"},
        outputs=["out", "done"],
    )
    flow.node(
        "sink",
        """
        import time
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        seen = []
        until = time.monotonic() + 10
        while len(seen) < 6 and time.monotonic() < until:
            events = node.drain()
            assert isinstance(events, list)
            seen += [[event["id"], event["value"].to_pylist()] for event in events]
        report([value for id_, [value] in seen if id_ == "in"])
        node.send_output("drained", pa.array([0]))
        """,
        inputs={"in": "source/out", "done": "source/done"},
        outputs=["drained"],
    )
    flow.run(stop_after=15).expect(0)
    assert flow.reports("sink") == [[0, 1, 2, 3, 4]]
