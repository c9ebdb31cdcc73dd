"""The values that a node may send arrive with their type."""

from typing import Any

import pytest

from tests.harness.dataflow import Flow

MAKE = """
import datetime as dt
import pyarrow as pa

VALUES = {
    "int64": lambda: pa.array([1, None, 3]),
    "float32": lambda: pa.array([1.5, 2.5], pa.float32()),
    "bool": lambda: pa.array([True, False, None]),
    "string": lambda: pa.array(["a", None, "ü"]),
    "large_string": lambda: pa.array(["a"], pa.large_string()),
    "string_view": lambda: pa.array(["short", "longer than twelve bytes"], pa.string_view()),
    "binary": lambda: pa.array([b"x", b""]),
    "null": lambda: pa.nulls(3),
    "empty": lambda: pa.array([], pa.uint8()),
    "slice": lambda: pa.array(range(100))[10:13],
    "bool_slice": lambda: pa.array([True, False, True, True] * 5)[3:9],
    "string_slice": lambda: pa.array(["a", "bb", "ccc"])[1:],
    "list": lambda: pa.array([[1, 2], [], None]),
    "nested_list": lambda: pa.array([[[1], [2, 3]], []]),
    "fixed_list": lambda: pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
    "struct": lambda: pa.array([{"a": 1, "b": "x"}, None]),
    "struct_of_slices": lambda: pa.StructArray.from_arrays(
        [pa.array(range(9))[2:5], pa.array(list("abcdefghi"))[4:7]], ["n", "s"]
    ),
    "dictionary": lambda: pa.array(["a", "b", "a"]).dictionary_encode(),
    "timestamp": lambda: pa.array([dt.datetime(2024, 1, 2)], pa.timestamp("us", "UTC")),
    "decimal": lambda: pa.array([1, 2]).cast(pa.decimal128(21, 2)),
    "map": lambda: pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())),
    "large": lambda: pa.array(range(200_000), pa.uint32()),
}
"""

SENDER = """
    import pyarrow as pa
    from dora import Node
    from make import VALUES

    node = Node()
    for name, value in VALUES.items():
        assert node.send_output("v", value(), {"name": name}) is None
    node.send_output("v", b"bytes", {"name": "bytes"})
    node.send_output("v", b"", {"name": "no bytes"})
    batch = pa.record_batch({"a": [1, 2], "b": ["x", "y"]})
    node.send_output("v", batch, {"name": "record batch"})
"""

RECEIVER = """
    import pyarrow as pa
    from dora import Node
    from make import VALUES
    from probe import report

    for event in Node():
        if event["type"] != "INPUT":
            continue
        name, value = event["metadata"]["name"], event["value"]
        value.validate(full=True)
        seen = {"type": str(value.type), "class": type(value).__name__, "offset": value.offset}
        if len(value) < 100:
            seen["values"] = str(value.to_pylist())
        if name in VALUES:
            wanted = VALUES[name]()
            seen["equal"] = value.type == wanted.type and value.equals(wanted)
        if pa.types.is_primitive(value.type) and value.type.bit_width >= 8:
            seen["size"] = value.buffers()[1].size == len(value) * value.type.bit_width // 8
        report([name, seen])
"""

REFUSED = """
    import numpy as np
    import pyarrow as pa
    from dora import Node
    from probe import report

    node = Node()
    refused = {
        "str": "text",
        "list": [1, 2],
        "bytearray": bytearray(b"x"),
        "memoryview": memoryview(b"x"),
        "numpy array": np.arange(3),
        "numpy scalar": np.int64(1),
        "int": 1,
        "arrow scalar": pa.scalar(1),
        "None": None,
        "ChunkedArray": pa.chunked_array([[1], [2]]),
        "Table": pa.table({"a": [1]}),
    }
    for name, value in refused.items():
        try:
            node.send_output("v", value)
            report([name, "sent", ""])
        except Exception as error:
            report([name, type(error).__name__, str(error)])
"""

NAMES = [line.split('"')[1] for line in MAKE.splitlines() if line.startswith('    "')]


@pytest.fixture(scope="module")
def received(module_flow: Flow) -> dict[str, dict[str, Any]]:
    (module_flow.folder / "make.py").write_text(MAKE, encoding="utf-8")
    module_flow.node("sender", SENDER, outputs=["v"])
    module_flow.node("receiver", RECEIVER, inputs={"v": {"source": "sender/v", "queue_size": 100}})
    module_flow.run().expect(0)
    return dict(module_flow.reports("receiver"))


@pytest.mark.parametrize("name", NAMES)
def test_an_array_arrives_with_its_type_and_values(received: dict[str, Any], name: str) -> None:
    assert received[name]["equal"], received[name]


@pytest.mark.parametrize("name", NAMES)
def test_slices_arrive_without_their_offsets(received: dict[str, Any], name: str) -> None:
    assert received[name]["offset"] == 0


@pytest.mark.parametrize("name", ["int64", "float32", "slice", "timestamp", "large"])
def test_the_data_buffer_is_exactly_as_long_as_the_data(
    received: dict[str, Any], name: str
) -> None:
    assert received[name]["size"]


def test_bytes_arrive_as_uint8(received: dict[str, Any]) -> None:
    assert received["bytes"]["type"] == "uint8"
    assert received["bytes"]["values"] == str(list(b"bytes"))


def test_empty_bytes_arrive_as_an_empty_uint8(received: dict[str, Any]) -> None:
    assert received["no bytes"]["type"] == "uint8"
    assert received["no bytes"]["values"] == "[]"


def test_a_record_batch_arrives_as_a_struct_array(received: dict[str, Any]) -> None:
    assert received["record batch"]["class"] == "StructArray"
    assert received["record batch"]["values"] == "[{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]"


def test_other_data_is_refused_with_a_list_of_accepted_types(flow: Flow) -> None:
    flow.node("sender", REFUSED, outputs=["v"])
    flow.run().expect(0)
    reports = flow.reports("sender")
    assert len(reports) == 11
    for name, error, text in reports:
        assert error == "RuntimeError", name
        assert "bytes" in text.lower(), f"{name}: {text}"
        assert "arrow" in text.lower(), f"{name}: {text}"


def test_a_refusal_is_one_line_without_a_backtrace(flow: Flow) -> None:
    flow.node("sender", REFUSED, outputs=["v"])
    flow.run().expect(0)
    assert [name for name, _, text in flow.reports("sender") if "\n" in text] == []
