"""What `dora run` writes to the exporter's standard input, and what that writes back.

Each frame has its length in 4 bytes, then JSON. The end of the input ends the exporter.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dorad.control.messages import LogLines, Top, TraceBatch
from dorad.control.messages.base import Struct

if TYPE_CHECKING:
    import asyncio

STATUS_FILE = Path("/run/dorad-telemetry/status.json")
"""Of the robot's exporter: its reports of all signals."""

MAX_STATUS = 65_536
"""Bytes of that file."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.json.Encoder()


class Fed(Struct):
    """A measurement, log lines, or traces."""

    top: Top | None = None
    lines: LogLines | None = None
    traces: TraceBatch | None = None
    name: str | None = None
    """Of the dataflow of the lines and traces."""


class Report(Struct):
    """How the sending of a signal goes: a line of the exporter's standard output."""

    signal: str
    url: str
    sent: int = 0
    dropped: int = 0
    error: str = ""
    last: bool = False
    """Whether the exporter has ended."""


def frame(fed: Fed) -> bytes:
    """Return a frame."""
    content = _encoder.encode(fed)
    return _LENGTH.pack(len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> Fed:
    """Return the next frame.

    Raises:
        asyncio.IncompleteReadError: the input has ended.
        msgspec.DecodeError: this is no frame.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return msgspec.json.decode(await reader.readexactly(length), type=Fed)
