"""Messages that prove themselves: integers that follow from a number, and a checksum beside them.

`born` is when the node that made it started, in monotonic ns; `relay` the same for the node that
passed it on, 0 if none did. So a message tells whose death may lie between it and the last one.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from dora import Node

INTEGERS = 256
BORN = time.monotonic_ns()
FOLDER = Path(os.environ["FAULTS_FOLDER"])
_COUNTS = struct.Struct("3Q")


def send(node: Node, output: str, sequence: int, born: int = BORN, relay: int = 0) -> None:
    values = np.arange(sequence, sequence + INTEGERS, dtype=np.int64)
    metadata = {"born": born, "relay": relay, "seq": sequence, "crc": zlib.crc32(values)}
    node.send_output(output, pa.array(values), metadata)


def verify(event: dict[str, Any]) -> tuple[int, int, int]:
    """Return born, relay and sequence of a message; complain if its content is not right."""
    metadata = event["metadata"]
    values = event["value"].to_numpy()
    sequence = metadata["seq"]
    if zlib.crc32(values) != metadata["crc"] or values[0] != sequence or len(values) != INTEGERS:
        complain(f"message {sequence} is damaged")
    return metadata["born"], metadata["relay"], sequence


def complain(text: str) -> None:
    with (FOLDER / "complaints").open("a") as file:
        file.write(f"{os.environ['FAULTS_NODE']}: {text}\n")


class Counts:
    """Three numbers in a file: they outlive the process, and the campaign reads them."""

    def __init__(self) -> None:
        path = FOLDER / f"{os.environ['FAULTS_NODE']}.counts"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        data = os.pread(self._file, _COUNTS.size, 0)
        self.values = list(_COUNTS.unpack(data)) if data else [0, 0, 0]

    def write(self) -> None:
        os.pwrite(self._file, _COUNTS.pack(*self.values), 0)
