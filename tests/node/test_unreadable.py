"""Unreadable messages become ERROR events, and the next message still comes."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from dorad.shm import layout
from dorad.shm.layout import CODE_IPC
from tests.node.fakedaemon import FakeDaemon, attached, push


class FailingType(pa.ExtensionType):
    """A type whose own code refuses its storage."""

    def __init__(self) -> None:
        super().__init__(pa.int8(), "tests.picky")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> FailingType:
        raise KeyError("not mine")


def _stream(array: pa.Array) -> bytes:
    batch = pa.record_batch([array], names=["v"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _event_of(folder: Path, code: int, payload: bytes) -> str:
    """The text of the ERROR for a payload sent as a type; a readable message follows it."""
    daemon = FakeDaemon(folder, {"a": 10})
    try:
        with attached(daemon) as node:
            outlet = daemon.outlet("a")
            memory = daemon.box.memory
            size = len(payload)
            # The mailbox takes the place of the sender's segment.
            daemon.send("segment", [memory], segment=7)
            at = daemon.box.mapping.size - layout.ENTRY_SIZE * 64
            daemon.box.mapping.memory[at : at + size] = payload
            entry = layout.ENTRY.pack(time.time_ns(), 1, 0, size, at, 0, 7, 0, 0, code, 0, 0)
            outlet.push(entry, size, 0)
            push(outlet, b"x")
            event = node.receiver.next(None)
            after = node.receiver.next(None)
        assert event is not None
        assert event["type"] == "ERROR", event
        assert after is not None
        assert after["value"].to_pylist() == [ord("x")]
        return str(event["error"])
    finally:
        daemon.close()


@pytest.mark.parametrize("code", [77, CODE_IPC])
def test_a_payload_that_is_not_an_array_is_an_error_event(tmp_path: Path, code: int) -> None:
    text = _event_of(tmp_path, code, b"\xff" * 400)
    assert text.startswith("a message on input 'a' cannot be read: ")


def test_a_type_whose_own_code_fails_is_an_error_event(tmp_path: Path) -> None:
    payload = _stream(pa.ExtensionArray.from_storage(FailingType(), pa.array([1], pa.int8())))
    pa.register_extension_type(FailingType())
    try:
        text = _event_of(tmp_path, CODE_IPC, payload)
    finally:
        pa.unregister_extension_type("tests.picky")
    assert text == "a message on input 'a' cannot be read: 'not mine'"
