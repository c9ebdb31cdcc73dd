"""The first messages of a dataflow: one-time work of a node does not delay or drop them."""

from tests.harness.dataflow import Flow

MESSAGES = 100

SLOW_PANDAS = """
import sys
import time

if not hasattr(sys, "pandas_was_slow"):
    sys.pandas_was_slow = True
    time.sleep(1.0)
raise ImportError("no pandas here, but it takes as long as that of a small machine")
"""


def _flow(flow: Flow, *, look: str) -> None:
    flow.folder.joinpath("pandas.py").write_text(SLOW_PANDAS)
    flow.node(
        "sender",
        f"""
        import time
        from dora import Node

        node = Node()
        for number in range({MESSAGES}):
            node.send_output("out", bytes([number]))
            time.sleep(0.01)
        """,
        outputs=["out"],
    )
    flow.node(
        "receiver",
        f"""
        from dora import Node
        from probe import report

        received = []
        for event in Node():
            if event["type"] == "INPUT":
                value = event["value"]
                received.append(int({look}))
        report(received)
        """,
        inputs={"in": "sender/out"},
    )


def _lost(flow: Flow, look: str) -> list[int]:
    _flow(flow, look=look)
    flow.run().expect(0)
    ((received,),) = [flow.reports("receiver")]
    return sorted({*range(MESSAGES)} - {*received})


def test_no_first_message_is_lost_with_pandas_installed(flow: Flow) -> None:
    assert _lost(flow, "value.to_numpy()[0]") == []


def test_no_first_message_is_lost_to_the_first_computation(flow: Flow) -> None:
    assert _lost(flow, "value.sum().as_py()") == []


def test_one_time_setup_is_done_before_the_barrier_by_senders_too(flow: Flow) -> None:
    flow.folder.joinpath("pandas.py").write_text(SLOW_PANDAS)
    flow.node(
        "node",
        """
        import sys
        from dora import Node
        from probe import report

        node = Node()
        report([name in sys.modules for name in ("pyarrow", "numpy")] + [sys.pandas_was_slow])
        """,
        outputs=["out"],
    )
    flow.run().expect(0)
    assert flow.reports("node") == [[True, True, True]]
