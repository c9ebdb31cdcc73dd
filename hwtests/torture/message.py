"""Messages that can be verified: content that follows from a number, and a checksum."""

from __future__ import annotations

import zlib
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from dorad.node.node import Node

LARGEST = 4 << 20
KINDS = ("bytes", "array", "shm", "raw", "nested")
_BLOCK = memoryview(Random(1).randbytes(2 * LARGEST))

_RANGES = ((0, 0), (1, 120), (121, 4096), (4097, 1 << 16), (1 << 16, 1 << 20), (1 << 20, LARGEST))
_WEIGHTS = (5, 35, 25, 20, 12, 3)


def random_size(rng: Random) -> int:
    """Return a payload's size in bytes: mostly small, a few of several MiB."""
    low, high = rng.choices(_RANGES, _WEIGHTS)[0]
    return rng.randint(low, high)


def content(sequence: int, incarnation: int, size: int) -> memoryview:
    """Return bytes that differ from those of almost every other message."""
    at = (sequence * 40_503 + incarnation * 1_000_003) % (len(_BLOCK) - size)
    return _BLOCK[at : at + size]


def padding(sequence: int) -> str:
    """Return metadata text; every eighth does not fit into a ring's entry."""
    return f"{sequence}." * (60 if sequence % 8 == 0 else 1)


def send(node: Node, output: str, sequence: int, incarnation: int, rng: Random) -> Any:
    """Send one message in a random way; return the array if it was created in shared memory."""
    kind = rng.choice(KINDS)
    size = random_size(rng)
    data = content(sequence, incarnation, size)
    metadata = {
        "i": incarnation,
        "s": sequence,
        "c": zlib.crc32(data),
        "n": size,
        "p": padding(sequence),
    }
    if kind == "raw":
        with node.send_output_raw(output, size, metadata) as view:
            view[:] = data
        return None
    if kind == "shm":
        array = node.empty(size)
        array[:] = data
        node.send_output(output, array, metadata)
        return array
    if kind == "bytes":
        node.send_output(output, bytes(data), metadata)
    elif kind == "array":
        value = pa.Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(data)])
        node.send_output(output, value, metadata)
    else:
        value = pa.array([{"v": bytes(data)}], pa.struct([("v", pa.binary())]))
        node.send_output(output, value, metadata)
    return None


def payload(value: pa.Array) -> memoryview:
    """Return the bytes of a received array, in place."""
    if value.type == pa.uint8():
        buffer = value.buffers()[1]
        whole = memoryview(b"" if buffer is None else buffer).cast("B")
        return whole[value.offset : value.offset + len(value)]
    return memoryview(value.field(0)[0].as_buffer()).cast("B")


def fault(value: pa.Array, metadata: dict[str, Any]) -> str | None:
    """Return what is wrong with a received message, None if it is whole."""
    data = payload(value)
    if len(data) != metadata["n"]:
        return f"{len(data)} bytes instead of {metadata['n']}"
    if metadata["p"] != padding(metadata["s"]):
        return f"metadata of another message: {metadata}"
    if zlib.crc32(data) != metadata["c"]:
        return f"the checksum of {len(data)} bytes differs"
    return None
