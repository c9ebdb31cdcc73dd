"""`send_output` beyond plain sending: undeclared ids, after STOP, keywords, raw buffers."""

from tests.harness.dataflow import Flow

SINK = """
    from dora import Node
    from probe import report

    for event in Node():
        if event["type"] == "INPUT":
            metadata = {k: v for k, v in event["metadata"].items() if k != "timestamp"}
            report([event["id"], str(event["value"].type), event["value"].to_pylist(), metadata])
"""


def test_an_undeclared_output_is_only_warned_about_once(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        for number in range(3):
            report(node.send_output("unknown", pa.array([number])))
        node.send_output("out", pa.array([7]))
        """,
        outputs=["out"],
    )
    flow.node("sink", SINK, inputs={"in": "sender/out"})
    outcome = flow.run().expect(0)
    assert flow.reports("sender") == [None] * 3
    assert flow.reports("sink") == [["in", "int64", [7], {}]]
    warnings = [line for line in outcome.lines_about("sender", ["WARN"]) if "unknown" in line]
    assert len(warnings) == 1, outcome.output


def test_sending_after_stop_does_not_raise(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        for event in node:
            if event["type"] == "STOP":
                report(node.send_output("out", pa.array([1])))
        report(node.send_output("out", pa.array([2])))
        report("end")
        """,
        inputs={"tick": "dora/timer/millis/100"},
        outputs=["out"],
    )
    flow.run(stop_after=8).expect(0)
    assert flow.reports("sender") == [None, None, "end"]


def test_arguments_may_be_given_by_name(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        node.send_output(output_id="out", data=pa.array([1]), metadata={"a": 1})
        node.send_output("out", data=b"x", metadata=None)
        node.send_output("out", pa.array([3]), {"a": 3})
        """,
        outputs=["out"],
    )
    flow.node("sink", SINK, inputs={"in": "sender/out"})
    flow.run().expect(0)
    assert flow.reports("sink") == [
        ["in", "int64", [1], {"a": 1}],
        ["in", "uint8", [120], {}],
        ["in", "int64", [3], {"a": 3}],
    ]


def test_an_id_with_slashes_is_an_ordinary_id(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import pyarrow as pa
        from dora import Node

        Node().send_output("v1/chat/completions", pa.array([1]))
        """,
        outputs=["v1/chat/completions"],
    )
    flow.node("sink", SINK, inputs={"a/b": "sender/v1/chat/completions"})
    flow.run().expect(0)
    assert flow.reports("sink") == [["a/b", "int64", [1], {}]]


def test_a_raw_buffer_is_sent_when_its_block_ends(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node

        with Node().send_output_raw("out", 4, {"a": 1}) as buffer:
            view = memoryview(buffer)
            view[:] = b"abcd"
            del view
        """,
        outputs=["out"],
    )
    flow.node("sink", SINK, inputs={"in": "sender/out"})
    flow.run().expect(0)
    assert flow.reports("sink") == [["in", "uint8", list(b"abcd"), {"a": 1}]]


def test_a_raw_buffer_may_be_sent_by_hand_once(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from probe import report

        sample = Node().send_output_raw("out", 3)
        view = sample.as_memoryview()
        view[:] = b"abc"
        del view
        sample.send()
        try:
            sample.send()
        except Exception as error:
            report("refused")
        """,
        outputs=["out"],
    )
    flow.node("sink", SINK, inputs={"in": "sender/out"})
    flow.run().expect(0)
    assert flow.reports("sink") == [["in", "uint8", list(b"abc"), {}]]
    assert flow.reports("sender") == ["refused"]


def test_a_raw_buffer_is_not_sent_while_views_of_it_are_open(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from probe import report

        sample = Node().send_output_raw("out", 3)
        view = sample.as_memoryview()
        try:
            sample.send()
        except Exception as error:
            report("refused")
        """,
        outputs=["out"],
    )
    flow.run().expect(0)
    assert flow.reports("sender") == ["refused"]


def test_a_block_that_ends_with_an_open_view_raises_and_one_that_raises_sends_nothing(
    flow: Flow,
) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from probe import report

        node = Node()
        try:
            with node.send_output_raw("out", 3) as buffer:
                view = memoryview(buffer)
        except RuntimeError as error:
            report(str(error))
        try:
            with node.send_output_raw("out", 3):
                raise KeyError("mine")
        except KeyError:
            report("mine")
        """,
        outputs=["out"],
    )
    flow.node("sink", SINK, inputs={"in": "sender/out"})
    flow.run().expect(0)
    refusal, mine = flow.reports("sender")
    assert "still open" in refusal
    assert mine == "mine"
    assert flow.reports("sink") == []


def test_a_sent_raw_buffer_can_no_longer_be_written(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from probe import report

        sample = Node().send_output_raw("out", 3)
        sample.send()
        try:
            sample.as_memoryview()
        except RuntimeError:
            report("refused")
        """,
        outputs=["out"],
    )
    flow.run().expect(0)
    assert flow.reports("sender") == ["refused"]


def test_a_raw_buffer_for_an_undeclared_output_raises(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node
        from probe import report

        try:
            Node().send_output_raw("unknown", 3)
        except Exception as error:
            report("refused")
        """,
        outputs=["out"],
    )
    flow.run().expect(0)
    assert flow.reports("sender") == ["refused"]
