"""Recordings for tests, made without processes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from dorad.node import metadata as metadata_codec
from dorad.record.encoding.messages import Encoded, encode_raw
from dorad.record.mcap.layout import Attachment
from dorad.record.mcap.writer import RecordingFile
from dorad.shm.arrow import encode

START = 1_700_000_000_000_000_000

DREC = Path(__file__).with_name("data") / "dora-1.1.0.drec"
"""A recording of dora 1.1.0, made with its `record --proxy`."""

DATAFLOW = b"""
nodes:
  - id: source
    path: source.py
    outputs: [number, text]
  - id: worker
    path: worker.py
    inputs: {number: source/number}
    outputs: [sum]
  - id: sink
    path: sink.py
    inputs: {sum: worker/sum}
"""


def raw(array: pa.Array) -> tuple[int, int, int, bytes]:
    """Return code, length, nulls and payload of an array as it lies in a ring."""
    code, length, nulls, size, parts = encode(array)
    payload = bytearray(size)
    for at, data in parts:
        view = memoryview(data)
        if view.nbytes:
            payload[at : at + view.nbytes] = view.cast("B")
    return code, length, nulls, bytes(payload)


def encoded(array: pa.Array, metadata: dict[str, Any] | None = None, stamp: int = START) -> Encoded:
    """Return a message as the recorder encodes it."""
    meta = metadata_codec.encode(metadata) if metadata else b""
    return encode_raw(*raw(array), meta, stamp)


Line = tuple[str, int, pa.Array, dict[str, Any]]
"""Topic, time in ms after START, array, metadata."""


def write(
    path: Path,
    lines: Iterable[Line],
    *,
    per_chunk: int = 10,
    compression: str = "auto",
    dataflow: bytes = DATAFLOW,
    attachments: Iterable[Attachment] = (),
    **values: str,
) -> Path:
    """Write a complete recording of these messages."""
    file = RecordingFile(path, "test", compression=compression)
    file.describe("dora.recording", {"id": "test", **values})
    file.attach(Attachment(START, "dataflow.yml", "application/yaml", dataflow))
    for each in attachments:
        file.attach(each)
    numbers: dict[str, int] = {}
    for count, (topic, at_ms, array, metadata) in enumerate(lines, start=1):
        number = numbers[topic] = numbers.get(topic, -1) + 1
        stamp = START + at_ms * 1_000_000
        file.add(topic, number, stamp, encoded(array, metadata, stamp))
        if count % per_chunk == 0:
            file.flush()
    file.flush()
    file.describe("dora.end", {"status": "COMPLETE", "reason": "test"})
    file.finish()
    file.close()
    return path


def numbers(count: int, topic: str = "source/number", every_ms: int = 10) -> list[Line]:
    """Return messages of one integer each: 0, 1, 2 ..."""
    return [(topic, n * every_ms, pa.array([n]), {"n": n}) for n in range(count)]
