"""Requests and responses: messages whose metadata carries the same `request_id`."""

import uuid

from tests.harness.dataflow import Flow


def test_a_response_has_the_id_of_its_request(flow: Flow) -> None:
    flow.node(
        "client",
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        given = {"unit": "cm"}
        asked = [node.send_service_request("ask", pa.array([n]), given) for n in range(2)]
        asked.append(node.send_service_request("ask", b"a"))
        report([given, asked])
        for _ in asked:
            event = node.next()
            report([event["value"].to_pylist(), event["metadata"]["request_id"]])
        """,
        inputs={"answer": "server/answer"},
        outputs=["ask"],
    )
    flow.node(
        "server",
        """
        from dora import Node
        from probe import report

        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                metadata = event["metadata"]
                report(metadata.get("unit"))
                report(node.send_service_response("answer", event["value"], metadata))
        """,
        inputs={"ask": "client/ask"},
        outputs=["answer"],
    )
    flow.run(stop_after=20).expect(0)
    (given, asked), *answers = flow.reports("client")
    assert given == {"unit": "cm"}
    assert [uuid.UUID(text).version for text in asked] == [7, 7, 7]
    assert len(set(asked)) == 3
    assert answers == [[[0], asked[0]], [[1], asked[1]], [[97], asked[2]]]
    assert flow.reports("server") == ["cm", None, "cm", None, None, None]


def test_a_given_request_id_is_replaced_with_a_warning(flow: Flow) -> None:
    flow.node(
        "client",
        """
        from dora import Node
        from probe import report

        given = {"request_id": "mine", "x": 1}
        report([Node().send_service_request("ask", b"", given) != "mine", given])
        """,
        outputs=["ask"],
    )
    outcome = flow.run(stop_after=10).expect(0)
    assert flow.reports("client") == [[True, {"request_id": "mine", "x": 1}]]
    warnings = [line for line in outcome.lines_about("client", ["WARN"]) if "request_id" in line]
    assert len(warnings) == 1, outcome.output


def test_a_response_without_an_id_is_sent_with_a_warning(flow: Flow) -> None:
    flow.node(
        "server",
        """
        from dora import Node

        node = Node()
        node.send_service_response("answer", b"a", {})
        node.send_service_response("answer", b"b", {"request_id": "r"})
        """,
        outputs=["answer"],
    )
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        for event in Node():
            if event["type"] == "INPUT":
                report(event["metadata"].get("request_id"))
        """,
        inputs={"in": "server/answer"},
    )
    outcome = flow.run(stop_after=10).expect(0)
    assert flow.reports("sink") == [None, "r"]
    warnings = [line for line in outcome.lines_about("server", ["WARN"]) if "request_id" in line]
    assert len(warnings) == 1, outcome.output


def test_invalid_data_raises_as_in_send_output(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        for call in (
            lambda: node.send_service_request("out", [1]),
            lambda: node.send_service_request("out", b"", [1]),
            lambda: node.send_service_request("out", b"", {1: 2}),
            lambda: node.send_service_response("out", b"", None),
            lambda: node.send_service_response("out", b""),
            lambda: len(node.send_service_request("undeclared", b"")),
        ):
            try:
                report(call())
            except Exception as error:
                report(type(error).__name__)
        """,
        outputs=["out"],
    )
    flow.run(stop_after=10).expect(0)
    expected = ["RuntimeError", "TypeError", "RuntimeError", "TypeError", "TypeError", 36]
    assert flow.reports("node") == expected
