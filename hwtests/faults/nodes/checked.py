"""Messages that can be verified: integers that follow from a number, and a checksum.

`origin` is the start time of the process that sent it, in monotonic ns; `relay` that of the process
that passed it on, or 0. If either differs from the last message, that node has been restarted.
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
STARTED = time.monotonic_ns()
FOLDER = Path(os.environ["FAULTS_FOLDER"])
_COUNTS = struct.Struct("3Q")


def send(node: Node, output: str, sequence: int, origin: int = STARTED, relay: int = 0) -> None:
    values = np.arange(sequence, sequence + INTEGERS, dtype=np.int64)
    metadata = {"origin": origin, "relay": relay, "seq": sequence, "crc": zlib.crc32(values.data)}
    node.send_output(output, pa.array(values), metadata)


def verify(event: dict[str, Any]) -> tuple[int, int, int]:
    """Return origin, relay and sequence of a message; report a fault if its content is wrong."""
    metadata = event["metadata"]
    values = event["value"].to_numpy()
    sequence = metadata["seq"]
    if zlib.crc32(values) != metadata["crc"] or values[0] != sequence or len(values) != INTEGERS:
        report_fault(f"message {sequence} is damaged")
    return metadata["origin"], metadata["relay"], sequence


def report_fault(text: str) -> None:
    with (FOLDER / "faults").open("a") as file:
        file.write(f"{os.environ['FAULTS_NODE']}: {text}\n")


class Counts:
    """Three numbers in a file that outlives the process; the campaign reads them."""

    def __init__(self) -> None:
        path = FOLDER / f"{os.environ['FAULTS_NODE']}.counts"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        data = os.pread(self._file, _COUNTS.size, 0)
        self.values = list(_COUNTS.unpack(data)) if data else [0, 0, 0]

    def write(self) -> None:
        os.pwrite(self._file, _COUNTS.pack(*self.values), 0)
