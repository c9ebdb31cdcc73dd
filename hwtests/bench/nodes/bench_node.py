"""Shared by the nodes of the benchmark: settings, payloads, results.

Runs unchanged under every system that is measured, so it uses only the common node API.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from dora import Node

STAMP = struct.Struct("<q")
SILENCE_S = 2.0
"""How long a node waits for an answer before it counts the message as lost."""


class Payload(Protocol):
    """A message of one size. ``send`` stamps its first 8 bytes with the monotonic clock, in ns."""

    def send(self, output: str, metadata: dict[str, Any]) -> None: ...


class HeapPayload:
    """One array on the heap, sent again and again; only its stamp changes."""

    form = "heap array"

    def __init__(self, node: Node, size: int) -> None:
        self._node = node
        buffer = np.zeros(size, np.uint8)
        self._memory = buffer.data
        self._array = pa.array(buffer)

    def send(self, output: str, metadata: dict[str, Any]) -> None:
        STAMP.pack_into(self._memory, 0, time.monotonic_ns())
        self._node.send_output(output, self._array, metadata)


class EmptyPayload:
    """A new ``node.empty`` array for every message; only its first bytes are written."""

    form = "node.empty"

    def __init__(self, node: Node, size: int) -> None:
        self._node = node
        self._shape = (size,)

    def send(self, output: str, metadata: dict[str, Any]) -> None:
        array = self._node.empty(self._shape, "uint8")
        STAMP.pack_into(array, 0, time.monotonic_ns())
        self._node.send_output(output, array, metadata)


class RawPayload:
    """A new ``send_output_raw`` buffer for every message; only its first bytes are written."""

    form = "send_output_raw"

    def __init__(self, node: Node, size: int) -> None:
        self._node = node
        self._size = size

    def send(self, output: str, metadata: dict[str, Any]) -> None:
        with self._node.send_output_raw(output, self._size, metadata) as buffer:
            STAMP.pack_into(buffer, 0, time.monotonic_ns())


class NestedPayload:
    """What most nodes send, by its size; without a stamp, so for round trips only."""

    form = "nested array"

    def __init__(self, node: Node, size: int) -> None:
        self._node = node
        self._array = nested(size)

    def send(self, output: str, metadata: dict[str, Any]) -> None:
        self._node.send_output(output, self._array, metadata)


def nested(size: int) -> pa.Array:
    """Return a struct of numbers, a text, boxes or a picture of about so many bytes."""
    if size == 100:
        return pa.array(["x" * size])
    if size == 44_000:
        box = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "label": "person", "id": 7}
        return pa.array([[box] * 1000])
    if size >= 1 << 20:
        pixels = pa.array([np.zeros(size, np.uint8)], pa.list_(pa.uint8()))
        head = {"width": 640, "height": 480, "encoding": "rgb8", "stamp": 1.5}
        columns = [*(pa.array([value]) for value in head.values()), pixels]
        return pa.StructArray.from_arrays(columns, [*head, "data"])
    return pa.array([{f"value{at}": 0.5 for at in range(size // 8)}])


def payload_class(
    node: Node,
) -> type[HeapPayload] | type[EmptyPayload] | type[RawPayload] | type[NestedPayload]:
    """Return the class that ``BENCH_SOURCE`` names: heap, nested, or else in shared memory."""
    source = os.environ.get("BENCH_SOURCE", "heap")
    if source in ("heap", "nested"):
        return HeapPayload if source == "heap" else NestedPayload
    return EmptyPayload if hasattr(node, "empty") else RawPayload


def numbers(name: str) -> list[float]:
    """Return a comma-separated list of numbers from the environment."""
    return [float(text) for text in os.environ[name].split(",")]


def steps() -> list[tuple[int, int, float]]:
    """Return size in bytes, number of messages and gap in seconds of every step."""
    columns = numbers("BENCH_SIZES"), numbers("BENCH_COUNTS"), numbers("BENCH_GAPS_S")
    return [(int(size), int(count), gap) for size, count, gap in zip(*columns, strict=True)]


def step_seconds() -> float:
    """Return the time after which a step ends, even if messages are left."""
    return float(os.environ["BENCH_STEP_SECONDS"])


def stamp_of(value: Any) -> int:
    """Return the time a payload was sent, in ns of the monotonic clock."""
    return int(STAMP.unpack_from(value.buffers()[1], value.offset)[0])


def cpu_seconds() -> float:
    """Return the processor time of this process, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(result: dict[str, Any]) -> None:
    """Write the result of this node to ``BENCH_OUT``, completely or not at all."""
    target = Path(os.environ["BENCH_OUT"])
    draft = target.with_suffix(".part")
    draft.write_text(json.dumps(result), encoding="utf-8")
    draft.replace(target)
