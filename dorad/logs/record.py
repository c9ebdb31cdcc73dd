"""A line of a node's output as a record: severity, origin, text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of a node, or of the daemon itself (`node` None)."""

    timestamp: float
    """Seconds since the epoch, as the line says, else when it was read."""
    level: str
    """`error` `warn` `info` `debug` `trace`, or `stdout` for a line without a severity."""
    node: str | None
    message: str
    stream: Stream = "stdout"
    target: str | None = None
    fields: Mapping[str, Any] | None = None
    file: str | None = None
    line: int | None = None
    module_path: str | None = None


def parse_line(line: bytes, node: str, stream: Stream, now: float) -> LogRecord:
    """The record of one output line (without its newline). Never raises.

    A JSON object with at least `level` and `timestamp` is structured; anything else is its own
    message at level `stdout` and time `now`. Bad UTF-8 is replaced.
    """
    raise NotImplementedError
