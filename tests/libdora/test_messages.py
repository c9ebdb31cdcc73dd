"""Messages between nodes in C and in Python: every type, every kind of metadata, every size."""

from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import Compile, add

HERE = Path(__file__).parent

ARRAYS = """
import datetime
import pyarrow as pa

NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
           pa.uint64(), pa.float32(), pa.float64()]
TEXTS = [pa.string(), pa.binary(), pa.large_string(), pa.large_binary()]
METADATA = [
    {},
    {"a": 1, "b": -(2**63), "c": 2**63 - 1, "d": True, "e": False},
    {"x": 0.1, "y": 1e300, "z": -0.0, "whole": 3.0, "third": 1 / 3, "inf": float("inf")},
    {"text": 'quote " back \\\\ new\\nline', "more": "Grüße 🤖 \\u0001", "empty": ""},
    {"ints": [1, 2, -3], "floats": [0.5, 2.0], "texts": ["a", "ü"], "none": []},
    {"when": datetime.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=datetime.timezone.utc)},
    {"long": "x" * 5000},
    {"when": datetime.datetime(1969, 7, 20, 20, 17, 40, tzinfo=datetime.timezone.utc), "n": 0},
    {"tiny": 5e-324, "huge": -1.7976931348623157e308, "none": float("nan"), "low": float("-inf")},
    {f"key {at} ключ": at for at in range(200)},
    {"lists": [2**63 - 1, -(2**63), 0] * 100, "words": ["", "\\U0010ffff", "a" * 300, "\\u0000"]},
]


def arrays():
    for kind in NUMBERS:
        whole = pa.array(list(range(100)), kind)
        yield from (whole, whole[3:50], whole[:0], pa.array([1, None, 3] * 7, kind))
        yield pa.array([1, None, 3] * 7, kind)[5:]
        yield pa.array(list(range(20_000 if kind.bit_width > 8 else 100)) * 3, kind)
    bits = pa.array([True, False, None, True] * 50)
    yield from (bits, bits[3:], bits[8:], bits.fill_null(False), bits.fill_null(False)[5:])
    for kind in TEXTS:
        texts = pa.array(["", "a", None, "hällo" * 50, "z"], pa.string()).cast(kind)
        yield from (texts, texts[1:], texts[2:4], texts[:0], texts.drop_null())
        yield pa.array(["word"] * 10_000, pa.string()).cast(kind)
    yield pa.array([datetime.date(2024, 2, 29), None])
    yield pa.array([1, 2], pa.float16()) if False else pa.array([0], pa.int8())
    yield pa.nulls(0)
    yield pa.nulls(5)
    yield pa.array([86_400_000], pa.date64())


def cases():
    found = list(arrays())
    for at, array in enumerate(found):
        yield array, METADATA[at % len(METADATA)]
    for metadata in METADATA:
        yield found[0], metadata
"""

ASKER = """
from dora import Node
from probe import report
from arrays import cases

node = Node()
wrong = done = 0
for array, metadata in cases():
    node.send_output("out", array, metadata)
    while (event := node.next(20))["type"] != "INPUT":
        assert event["type"] != "ERROR", event
    got = {k: v for k, v in event["metadata"].items() if k != "timestamp"}
    same = repr(got) == repr(metadata) and event["value"].type == array.type
    if not (same and event["value"].equals(array)):
        report({"sent": repr(array)[:300], "got": repr(event["value"])[:300], "meta": repr(got)})
        wrong += 1
    event["value"].validate(full=True)
    done += 1
report({"done": done, "wrong": wrong})
"""


def echo_flow(flow: Flow, program: Path, source: str) -> None:
    flow.node("asker", source, inputs={"back": "echo/out"}, outputs=["out"])
    add(flow, "echo", program, inputs={"in": "asker/out"}, outputs=["out"])


def test_every_type_and_metadata_comes_back_the_same(
    flow: Flow, compile_node: Compile, tmp_path: Path
) -> None:
    (tmp_path / "arrays.py").write_text(ARRAYS)
    echo_flow(flow, compile_node("echo", HERE / "echo.c"), ASKER)
    outcome = flow.run(deadline=60)
    assert outcome.code == 0, outcome
    (last,) = flow.reports("asker")
    assert last["wrong"] == 0
    assert last["done"] > 90


ZOO = """
import pyarrow as pa
import zoo
from dorad.shm import arrow
from arrays import METADATA


def cases():
    types = {}
    for number, array in enumerate(zoo.arrays()):
        if str(array.type) not in types:
            types[str(array.type)] = None
            if len(types) <= 150:
                for metadata in METADATA:
                    yield array, metadata
        yield array, METADATA[number % len(METADATA)]


def bits(array):
    code, length, nulls, size, parts = arrow.encode(array)
    return [code, length, nulls, size, *((at, bytes(data)) for at, data in parts)]
"""

ZOO_ASKER = """
from dora import Node
from probe import report
from cases import bits, cases

node = Node()
done = 0
for array, metadata in cases():
    node.send_output("out", array, metadata)
    while (event := node.next(20))["type"] != "INPUT":
        assert event["type"] != "ERROR", event
    got = {k: v for k, v in event["metadata"].items() if k != "timestamp"}
    assert repr(got) == repr(metadata)
    value = event["value"]
    value.validate(full=True)
    assert value.type.equals(array.type, check_metadata=True), array.type
    assert bits(value) == bits(array), array.type
    done += 1
report(done)
"""

ZOO_ECHO = """
import zoo  # for its extension type
from dora import Node

node = Node()
for event in node:
    assert event["type"] != "ERROR", event
    if event["type"] == "INPUT":
        metadata = {k: v for k, v in event["metadata"].items() if k != "timestamp"}
        node.send_output("out", event["value"], metadata)
"""


@pytest.mark.long
@pytest.mark.parametrize("language", ["c", "python"])
def test_every_type_of_the_zoo_comes_back_bit_by_bit_with_every_kind_of_metadata(
    flow: Flow, compile_node: Compile, tmp_path: Path, language: str
) -> None:
    (tmp_path / "zoo.py").write_text((HERE.parent / "shm" / "zoo.py").read_text())
    (tmp_path / "arrays.py").write_text(ARRAYS)
    (tmp_path / "cases.py").write_text(ZOO)
    flow.node("asker", ZOO_ASKER, inputs={"back": "echo/out"}, outputs=["out"])
    if language == "c":
        echo = compile_node("echo", HERE / "echo.c")
        add(flow, "echo", echo, inputs={"in": "asker/out"}, outputs=["out"])
    else:
        flow.node("echo", ZOO_ECHO, inputs={"in": "asker/out"}, outputs=["out"])
    outcome = flow.run(deadline=300)
    assert outcome.code == 0, outcome
    (done,) = flow.reports("asker")
    assert done > 3000 + 144 * 11


@pytest.mark.parametrize("kind", ["view", "run-end"])
def test_a_type_without_a_form_is_reported_and_does_not_end_the_node(
    flow: Flow, compile_node: Compile, kind: str
) -> None:
    source = f"""
    import pyarrow as pa
    from dora import Node
    from probe import report
    node = Node()
    values = {{"view": pa.array(["a"], pa.string_view()),
              "run-end": pa.RunEndEncodedArray.from_arrays([2], ["x"])}}
    for value in (values["{kind}"], pa.array([1])):
        node.send_output("out", value)
        while (event := node.next(20))["type"] != "INPUT":
            assert event["type"] != "ERROR", event
        report(event["value"].to_pylist())
    """
    echo_flow(flow, compile_node("echo", HERE / "echo.c"), source)
    outcome = flow.run()
    assert outcome.code == 0, outcome
    assert flow.reports("asker") == [list(b"unreadable"), [1]]
    assert "which nodes in C cannot read" in outcome.output


def test_events_that_are_held_keep_their_bytes_beyond_the_hazard_slots(
    flow: Flow, compile_node: Compile
) -> None:
    source = """
    import numpy as np
    import pyarrow as pa
    from dora import Node
    from probe import report
    node = Node()
    for turn in range(300):
        node.send_output("out", pa.array(np.full(5000, turn)), {"turn": turn})
        while (event := node.next(20))["type"] != "INPUT":
            assert event["type"] != "ERROR", event
        assert event["metadata"]["turn"] == turn
        assert event["value"].to_numpy().tolist() == [turn] * 5000
    report("done")
    """
    program = compile_node("echo", HERE / "echo.c")
    echo_flow(flow, program, source)
    flow.nodes[-1]["args"] = "40"
    outcome = flow.run(deadline=60)
    assert outcome.code == 0, outcome
    assert flow.reports("asker") == ["done"]
