"""Calls between nodes of a running dataflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness.dataflow import Flow

SERVER = """
import pyarrow as pa
from dora import Node

node = Node()

@node.serve("request", "response")
def double(event):
    number = event["value"][0].as_py()
    if number < 0:
        raise ValueError("negative")
    return pa.array([2 * number])

node.serve()
"""


def wire(flow: Flow, client: str, server: str = SERVER, **inputs: str) -> Flow:
    flow.node(
        "client",
        client,
        inputs={"response": "server/response", **inputs},
        outputs=["request"],
    )
    return flow.node("server", server, inputs={"request": "client/request"}, outputs=["response"])


def test_a_call_returns_the_answer_to_its_own_request(flow: Flow) -> None:
    wire(
        flow,
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        report([node.call("request", pa.array([n]), timeout=20)["value"][0].as_py() for n in range(50)])
        """,
    ).run().expect(0)
    assert flow.reports("client") == [[2 * n for n in range(50)]]


def test_an_exception_in_a_handler_is_raised_at_the_caller(flow: Flow) -> None:
    wire(
        flow,
        """
        import pyarrow as pa
        from dora import Node
        from dora.patterns import RemoteError
        from probe import report

        node = Node()
        try:
            node.call("request", pa.array([-1]), timeout=20)
        except RemoteError as error:
            report([error.kind, error.text])
        report(node.call("request", pa.array([4]), timeout=20)["value"].to_pylist())
        """,
    ).run().expect(0)
    assert flow.reports("client") == [["ValueError", "negative"], [8]]
