"""Raw buffers: filled in place, sent once, and never while a view is open."""

import copy
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
    with bench.handler(4) as buffer:
        with memoryview(buffer) as view:
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


def test_a_block_that_raises_sends_nothing_and_the_buffer_can_be_sent_later(bench: Bench) -> None:
    handler = bench.handler(4)
    with pytest.raises(ZeroDivisionError):
        with handler as buffer:
            buffer[:] = b"kept"
            raise ZeroDivisionError
    assert bench.sent() == []
    with handler as again:
        assert again is buffer
    assert bench.sent() == [b"kept"]


def test_a_buffer_sent_by_hand_in_its_block_raises_at_the_end_of_the_block(bench: Bench) -> None:
    handler = bench.handler(2)
    with pytest.raises(RuntimeError, match="Failed to send: Sample has already been sent"):
        with handler:
            handler.send()
    assert len(bench.sent()) == 1


def test_the_buffer_is_the_same_object_each_time_and_a_memoryview_a_new_one(bench: Bench) -> None:
    handler = bench.handler(4)
    assert handler.as_buffer() is handler.as_buffer()
    assert handler.as_memoryview() is not handler.as_memoryview()
    with handler as buffer:
        assert buffer is handler.as_buffer()


def test_a_buffer_can_be_read_and_written_like_bytes(bench: Bench) -> None:
    with bench.handler(5) as buffer:
        buffer[0:4] = b"abcd"
        buffer[4] = ord("e")
        assert (len(buffer), buffer[1], buffer[1:3], bytes(buffer)) == (5, 98, b"bc", b"abcde")
    assert bench.sent() == [b"abcde"]


@pytest.mark.parametrize("view_of", [memoryview, np.frombuffer, bytes, pa.py_buffer, len])
def test_a_sent_buffer_gives_no_view(bench: Bench, view_of: Any) -> None:
    handler = bench.handler(4)
    buffer = handler.as_buffer()
    handler.send()
    with pytest.raises(BufferError, match="the parent SampleHandler has been sent or dropped"):
        view_of(buffer)
    with pytest.raises(RuntimeError, match="has already been sent"):
        handler.as_buffer()


def test_the_buffer_of_a_dropped_handler_gives_no_view(bench: Bench) -> None:
    buffer = bench.handler(4).as_buffer()
    with pytest.raises(BufferError, match="sent or dropped"):
        memoryview(buffer)


def test_a_view_that_outlives_its_handler_keeps_its_memory(bench: Bench) -> None:
    view = bench.handler(100_000).as_memoryview()
    view[:] = b"x" * 100_000
    for _ in range(5):
        with bench.handler(100_000) as buffer:
            buffer[:] = b"y" * 100_000
    assert bytes(view) == b"x" * 100_000
    view.release()
    with bench.handler(100_000) as buffer:
        assert bench.sender.pool.size <= 1 << 20


def test_each_open_view_is_counted(bench: Bench) -> None:
    handler = bench.handler(4)
    first, second = handler.as_memoryview(), handler.as_memoryview()
    part = first[1:]
    with pytest.raises(RuntimeError, match=r"Cannot send: 2 buffer view\(s\) are still open"):
        handler.send()
    for view in (part, first, second):
        view.release()
    handler.send()


def test_the_metadata_given_at_the_start_is_sent(bench: Bench) -> None:
    seen = []
    bench.sender.send_sample = lambda *given: seen.append(given[-1])
    metadata = {"n": 1, "list": [1]}
    handler = bench.handler(4, metadata)
    metadata["n"] = 2
    metadata["list"].append(2)
    handler.send()
    assert seen == [{"n": 1, "list": [1]}]


def test_a_handler_cannot_be_copied(bench: Bench) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.copy(bench.handler(4))


def test_a_buffer_of_no_bytes_is_sent(bench: Bench) -> None:
    with bench.handler(0):
        pass
    assert bench.sent() == [b""]


@pytest.mark.parametrize(
    ("length", "error"), [(-1, OverflowError), (1 << 64, OverflowError), (1.5, TypeError)]
)
def test_an_invalid_length_is_refused(bench: Bench, length: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        bench.handler(length)


@pytest.mark.long
def test_buffers_are_reused_whether_sent_or_not(bench: Bench) -> None:
    for number in range(200):
        handler = bench.handler(100_000)
        if number % 2:
            handler.send()
        del handler
    assert bench.sender.pool.size <= 1 << 20


def test_wrong_metadata_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="must be strings"):
        with bench.handler(1, {1: 2}):
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


def test_an_array_over_a_sent_buffer_stays_valid_after_the_sender_has_exited(bench: Bench) -> None:
    handler = bench.handler(4)
    view = handler.as_memoryview()
    copy = pa.py_buffer(view)
    bench.sender = None
    del handler
    gc.collect()
    assert copy.size == 4
