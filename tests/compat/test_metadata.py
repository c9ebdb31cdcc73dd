"""The received value for each type of metadata value, and the source of the timestamp."""

from typing import Any

import pytest

from tests.harness.dataflow import Flow
from tests.harness.process import Outcome

SENDER = """
    import datetime as dt
    import numpy as np
    import pyarrow as pa
    from dora import Node
    from probe import report

    utc = dt.timezone.utc
    rows = {
        "true": True,
        "int": 3,
        "int_min": -(2**63),
        "int_max": 2**63 - 1,
        "too_big": 2**63,
        "float": 1.5,
        "whole_float": 2.0,
        "str": "grüß",
        "empty_str": "",
        "ints": [1, 2],
        "floats": [1.0, 2.5],
        "strs": ["a", ""],
        "mixed": [1, 2.5],
        "empty_list": [],
        "tuple": (1, 2),
        "aware": dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=utc),
        "zoned": dt.datetime(2024, 5, 6, 7, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "naive": dt.datetime(2024, 5, 6, 7, 8, 9),
        "none": None,
        "dict": {"a": 1},
        "bytes": b"xy",
        "numpy_int": np.int32(4),
        "numpy_float": np.float32(0.5),
        "numpy_array": np.arange(3),
        "bools": [True, False],
    }
    node = Node()
    for row, value in rows.items():
        try:
            node.send_output("row", pa.array([row]), {"v": value})
            report([row, "sent"])
        except Exception as error:
            report([row, type(error).__name__])
    try:
        node.send_output("row", pa.array(["key"]), {1: 2})
        report(["key", "sent"])
    except Exception as error:
        report(["key", type(error).__name__])
    node.send_output("row", pa.array(["nothing"]))
    node.send_output("row", pa.array(["own_int"]), {"timestamp": 17})
    node.send_output("row", pa.array(["own_datetime"]), {"timestamp": rows["aware"]})
"""

RECEIVER = """
    import datetime as dt
    from dora import Node
    from probe import report

    def shown(value):
        if isinstance(value, dt.datetime):
            return ["datetime", value.isoformat()]
        return [type(value).__name__, repr(value)]

    for event in Node():
        if event["type"] == "INPUT":
            metadata = event["metadata"]
            shown_items = {key: shown(value) for key, value in metadata.items()}
            report([event["value"][0].as_py(), type(metadata).__name__, shown_items])
"""


@pytest.fixture(scope="module")
def outcome(module_flow: Flow) -> Outcome:
    module_flow.node("sender", SENDER, outputs=["row"], env={"TZ": "EST5"})
    module_flow.node(
        "receiver", RECEIVER, inputs={"row": {"source": "sender/row", "queue_size": 100}}
    )
    return module_flow.run().expect(0)


@pytest.fixture(scope="module")
def sent(module_flow: Flow, outcome: Outcome) -> dict[str, str]:
    return dict(module_flow.reports("sender"))


@pytest.fixture(scope="module")
def received(module_flow: Flow, outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row: items for row, _, items in module_flow.reports("receiver")}


@pytest.mark.parametrize(
    ("row", "kind", "shown"),
    [
        ("true", "bool", "True"),
        ("int", "int", "3"),
        ("int_min", "int", "-9223372036854775808"),
        ("int_max", "int", "9223372036854775807"),
        ("float", "float", "1.5"),
        ("whole_float", "float", "2.0"),
        ("str", "str", "'grüß'"),
        ("empty_str", "str", "''"),
        ("ints", "list", "[1, 2]"),
        ("floats", "list", "[1.0, 2.5]"),
        ("strs", "list", "['a', '']"),
        ("empty_list", "list", "[]"),
        ("tuple", "list", "[1, 2]"),
        ("aware", "datetime", "2024-05-06T07:08:09.123456+00:00"),
        ("zoned", "datetime", "2024-05-06T05:00:00+00:00"),
        ("naive", "datetime", "2024-05-06T12:08:09+00:00"),  # local time of the sender, UTC-5
    ],
)
def test_a_value_of_a_known_type_arrives_unchanged(
    received: dict[str, Any], row: str, kind: str, shown: str
) -> None:
    assert received[row]["v"] == [kind, shown]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("none", "'None'"),
        ("dict", "\"{'a': 1}\""),
        ("bytes", "\"b'xy'\""),
        ("numpy_int", "'4'"),
        ("numpy_float", "'0.5'"),
        ("numpy_array", "'[0 1 2]'"),
        ("bools", "'[True, False]'"),
    ],
)
def test_any_other_value_arrives_as_its_text(
    received: dict[str, Any], row: str, shown: str
) -> None:
    assert received[row]["v"] == ["str", shown]


@pytest.mark.parametrize(
    ("row", "error"),
    [("too_big", "OverflowError"), ("mixed", "TypeError"), ("key", "RuntimeError")],
)
def test_a_value_without_a_representation_raises(
    sent: dict[str, str], received: dict[str, Any], row: str, error: str
) -> None:
    assert sent[row] == error
    assert row not in received


def test_a_value_turned_into_text_is_warned_about(outcome: Outcome) -> None:
    assert outcome.lines_about("sender", ["WARN", "Warning"]), outcome.output


def test_metadata_is_a_plain_dict(module_flow: Flow, outcome: Outcome) -> None:
    assert {kind for _, kind, _ in module_flow.reports("receiver")} == {"dict"}


def test_metadata_always_has_an_aware_utc_timestamp(received: dict[str, Any]) -> None:
    assert list(received["nothing"]) == ["timestamp"]
    kind, text = received["nothing"]["timestamp"]
    assert kind == "datetime"
    assert text.endswith("+00:00")


def test_a_senders_own_timestamp_arrives_untouched(received: dict[str, Any]) -> None:
    assert received["own_int"]["timestamp"] == ["int", "17"]
    assert received["own_datetime"]["timestamp"] == [
        "datetime",
        "2024-05-06T07:08:09.123456+00:00",
    ]


def test_forwarded_metadata_keeps_the_first_timestamp_and_changes_stay_local(flow: Flow) -> None:
    flow.node(
        "first",
        """
        import pyarrow as pa
        from dora import Node

        Node().send_output("out", pa.array([1]), {"hop": 0})
        """,
        outputs=["out"],
    )
    forward = """
        from dora import Node
        from probe import report

        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                metadata = event["metadata"]
                report([metadata["hop"], metadata["timestamp"].isoformat()])
                metadata["hop"] += 1
                node.send_output("out", event["value"], metadata)
    """
    flow.node("second", forward, inputs={"in": "first/out"}, outputs=["out"])
    flow.node("beside", forward, inputs={"in": "first/out"}, outputs=["out"])
    flow.node("third", forward, inputs={"in": "second/out"}, outputs=["out"])
    flow.run().expect(0)
    [[hop, stamp]] = flow.reports("second")
    assert hop == 0
    assert flow.reports("beside") == [[0, stamp]]
    assert flow.reports("third") == [[1, stamp]]
