"""The shape of events, and their order at the start and at the end of a source."""

from tests.harness.dataflow import Flow

RECORD = """
    from dora import Node
    from probe import report

    for event in Node():
        value = event.get("value")
        report([event["type"], event["id"], value if isinstance(value, dict) else None])
"""


def test_a_timer_tick_has_an_empty_null_array_and_a_timestamp(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        event = Node().next()
        report([isinstance(event, dict), sorted(event), event["kind"], event["type"], event["id"]])
        ways = event["value"], event.get("value"), dict(event)["value"], {**event}["value"]
        for value in ways:
            report([type(value).__name__, len(value)])
        report(list(event["metadata"]))
        """,
        inputs={"tick": "dora/timer/millis/50"},
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("node") == [
        [True, ["id", "kind", "metadata", "type", "value"], "dora", "INPUT", "tick"],
        *[["NullArray", 0]] * 4,
        ["timestamp"],
    ]


def test_a_ticks_value_can_be_read_first_in_any_way(flow: Flow) -> None:
    flow.node(
        "node",
        """
        import copy
        import operator
        from dora import Node
        from probe import report

        def matched(event):
            match event:
                case {"type": "INPUT", "value": value}:
                    return value

        ways = {
            "key": lambda event: event["value"],
            "get": lambda event: event.get("value"),
            "pop": lambda event: event.pop("value"),
            "setdefault": lambda event: event.setdefault("value"),
            "copy": lambda event: event.copy()["value"],
            "dict": lambda event: dict(event)["value"],
            "unpacked": lambda event: {**event}["value"],
            "left of |": lambda event: (event | {})["value"],
            "right of |": lambda event: ({} | event)["value"],
            "items": lambda event: dict(event.items())["value"],
            "values": lambda event: list(event.values())[list(event).index("value")],
            "itemgetter": operator.itemgetter("value"),
            "match": matched,
            "copy.copy": lambda event: copy.copy(event)["value"],
            "deepcopy": lambda event: copy.deepcopy(event)["value"],
        }
        node = Node()
        for name, look in ways.items():
            value = look(node.next())
            report([name, type(value).__name__])
        """,
        inputs={"tick": "dora/timer/millis/10"},
    )
    flow.run(stop_after=10).expect(0)
    found = dict(flow.reports("node"))
    assert len(found) == 15
    assert {name: kind for name, kind in found.items() if kind != "NullArray"} == {}


def test_a_sources_last_messages_come_before_its_close(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(5):
            node.send_output("a", pa.array([number]))
            node.send_output("b", pa.array([number]))
        """,
        outputs=["a", "b"],
    )
    flow.node("sink", RECORD, inputs={"a": "source/a", "b": "source/b"})
    flow.run().expect(0)
    events = flow.reports("sink")
    for input_id in ("a", "b"):
        types = [type_ for type_, id_, _ in events if id_ == input_id]
        assert types == ["INPUT"] * 5 + ["INPUT_CLOSED"]
    assert events[-1][:2] == ["STOP", "ALL_INPUTS_CLOSED"]
    assert len(events) == 13


def test_a_failed_source_closes_its_inputs_and_is_named(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import sys
        import pyarrow as pa
        from dora import Node

        Node().send_output("a", pa.array([1]))
        print("all is well")
        print("the lens is dirty", file=sys.stderr)
        raise SystemExit(3)
        """,
        outputs=["a", "b"],
    )
    flow.node(
        "sink",
        RECORD,
        inputs={"a": "source/a", "b": "source/b", "tick": "dora/timer/secs/60"},
    )
    outcome = flow.run(stop_after=4).expect(1)
    events = [event for event in flow.reports("sink") if event[1] != "tick"]
    assert [event[:2] for event in events[:1]] == [["INPUT", "a"]]
    assert sorted(event[:2] for event in events[1:-1]) == [
        ["INPUT_CLOSED", "a"],
        ["INPUT_CLOSED", "b"],
        ["NODE_FAILED", "source"],
    ]
    assert events[-1][:2] == ["STOP", "MANUAL"]
    [failure] = [value for type_, _, value in events if type_ == "NODE_FAILED"]
    assert sorted(failure.pop("affected_input_ids")) == ["a", "b"]
    rule = "-" * 81
    text = f"exited with code 3 with stderr output:\n{rule}\nthe lens is dirty\n{rule}\n"
    assert failure == {"source_node_id": "source", "error": text}
    assert outcome.lines_about("source", ["exited with code 3"]), outcome.output


def test_a_user_stop_is_manual_and_ends_the_iteration(flow: Flow) -> None:
    flow.node("node", RECORD, inputs={"tick": "dora/timer/secs/60"})
    flow.run(stop_after=4).expect(0)
    assert flow.reports("node") == [["INPUT", "tick", None], ["STOP", "MANUAL", None]]


def test_no_node_gets_events_before_all_have_called_node(flow: Flow) -> None:
    flow.node(
        "late",
        """
        import time
        from dora import Node
        from probe import report

        time.sleep(1.0)
        report(time.monotonic())
        Node()
        """,
    )
    flow.node(
        "early",
        """
        import time
        from dora import Node
        from probe import report

        node = Node()
        report(time.monotonic())
        node.next()
        report(time.monotonic())
        """,
        inputs={"tick": "dora/timer/millis/20"},
    )
    flow.run(stop_after=10).expect(0)
    [late] = flow.reports("late")
    constructed, first = flow.reports("early")
    assert late <= constructed <= first


def test_inputs_with_queued_messages_take_turns(flow: Flow) -> None:
    flow.node(
        "source",
        """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for name in "abc":
            for number in range(4):
                node.send_output(name, pa.array([number]))
        open("sent", "w").close()
        """,
        outputs=["a", "b", "c"],
    )
    flow.node(
        "sink",
        """
        import os, time
        from dora import Node
        from probe import report

        node = Node()
        while not os.path.exists("sent"):
            time.sleep(0.01)
        for event in node:
            if event["type"] == "INPUT":
                report([event["id"], event["value"][0].as_py()])
        """,
        inputs={name: f"source/{name}" for name in "abc"},
    )
    flow.run().expect(0)
    events = flow.reports("sink")
    turns = [events[start : start + 3] for start in range(0, 12, 3)]
    for number, turn in enumerate(turns):
        assert sorted(turn) == [["a", number], ["b", number], ["c", number]]


def test_the_metadata_dict_belongs_to_the_receiver(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        first = node.next()["metadata"]
        first["mine"] = 1
        second = node.next()["metadata"]
        report([first is second, sorted(second)])
        """,
        inputs={"tick": "dora/timer/millis/50"},
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("node") == [[False, ["timestamp"]]]
