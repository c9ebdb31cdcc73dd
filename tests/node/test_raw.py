"""Raw buffers: filled in place, sent once, and not while anyone can still write to them."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dorad.node.offline.filemode import FileSender
from dorad.node.raw import SampleHandler
from tests.harness.dataflow import Flow


class Bench:
    """A sender of file mode: its samples are handled as those in shared memory are."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "outputs.jsonl"
        self.sender: Any = FileSender(self.path, None)

    def handler(self, length: int, metadata: dict[str, Any] | None = None) -> SampleHandler:
        return SampleHandler(self, self.sender, "out", length, metadata)

    def sent(self) -> list[bytes]:
        return [bytes(json.loads(line)["data"]) for line in self.path.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    # pytest itself holds the bench for longer than its test.
    vars(bench).clear()


def test_a_buffer_is_sent_at_the_end_of_its_block(bench: Bench) -> None:
    with bench.handler(4) as view:
        assert isinstance(view, memoryview)
        assert (len(view), view.format, view.readonly) == (4, "B", False)
        view[:] = b"wxyz"
        assert bench.sent() == []
    assert bench.sent() == [b"wxyz"]


def test_a_buffer_can_be_filled_and_sent_by_hand(bench: Bench) -> None:
    handler = bench.handler(2)
    view = handler.as_memoryview()
    view[:] = b"ab"
    view.release()
    handler.send()
    assert bench.sent() == [b"ab"]


def test_a_buffer_is_sent_once(bench: Bench) -> None:
    handler = bench.handler(2)
    handler.send()
    with pytest.raises(RuntimeError, match="already been sent"):
        handler.send()
    with pytest.raises(RuntimeError, match="already been sent"):
        handler.as_memoryview()
    assert len(bench.sent()) == 1


def test_nothing_is_sent_while_a_view_is_open(bench: Bench) -> None:
    handler = bench.handler(2)
    view = handler.as_memoryview()
    with pytest.raises(RuntimeError, match="still open"):
        handler.send()
    assert bench.sent() == []
    view.release()
    handler.send()
    assert len(bench.sent()) == 1


def test_a_numpy_array_over_the_buffer_is_an_open_view(bench: Bench) -> None:
    handler = bench.handler(4)
    array = np.frombuffer(handler.as_memoryview(), "uint8")
    array[:] = 7
    with pytest.raises(RuntimeError, match="still open"):
        handler.send()
    del array
    handler.send()
    assert bench.sent() == [bytes([7] * 4)]


def test_an_array_left_open_in_a_block_is_an_error_and_nothing_is_sent(bench: Bench) -> None:
    kept = []
    with pytest.raises(RuntimeError, match="still open"):
        with bench.handler(4) as view:
            kept.append(np.frombuffer(view, "uint8"))
    assert bench.sent() == []


def test_a_block_that_raises_sends_nothing(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        with bench.handler(4):
            raise ZeroDivisionError
    assert bench.sent() == []


def test_a_block_in_which_it_was_sent_by_hand_sends_no_more(bench: Bench) -> None:
    handler = bench.handler(2)
    with handler as view:
        view.release()
        handler.send()
    assert len(bench.sent()) == 1


def test_a_buffer_of_no_bytes_is_sent(bench: Bench) -> None:
    with bench.handler(0):
        pass
    assert bench.sent() == [b""]


@pytest.mark.parametrize(("length", "error"), [(-1, OverflowError), (1.5, TypeError)])
def test_what_is_no_length_is_refused(bench: Bench, length: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        bench.handler(length)


def test_buffers_are_used_again_whether_they_were_sent_or_not(bench: Bench) -> None:
    for number in range(200):
        handler = bench.handler(100_000)
        if number % 2:
            handler.send()
        del handler
    assert bench.sender.pool.size <= 1 << 20


def test_wrong_metadata_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="must be strings"):
        with bench.handler(1, {1: 2}):  # type: ignore[dict-item]
            pass


def test_a_raw_buffer_arrives_as_uint8_with_its_metadata(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        from dora import Node

        with Node().send_output_raw("out", 100_000, {"n": 1}) as view:
            view[:] = bytes(range(250)) * 400
        """,
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        from dora import Node
        from probe import report

        for event in Node():
            if event["type"] == "INPUT":
                value = event["value"]
                right = value.buffers()[1].to_pybytes() == bytes(range(250)) * 400
                report([str(value.type), len(value), right, event["metadata"]["n"]])
        """,
        inputs={"in": "sender/out"},
    )
    flow.run().expect(0)
    assert flow.reports("sink") == [["uint8", 100_000, True, 1]]


def test_an_array_over_a_sent_buffer_stays_valid_when_the_sender_is_gone(bench: Bench) -> None:
    handler = bench.handler(4)
    view = handler.as_memoryview()
    copy = pa.py_buffer(view)
    bench.sender = None
    del handler
    gc.collect()
    assert copy.size == 4
