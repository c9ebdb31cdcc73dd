"""A log line as a record: what log files, live followers and the control API have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Stream = Literal["stdout", "stderr"]
Level = Literal["error", "warn", "info", "debug", "trace", "stdout"]

RAW: Literal["stdout"] = "stdout"
"""The level of a line without a severity, from either stream."""

LAST_MOMENT = 253_370_764_800
"""The year 9998, in seconds since 1970. Times beyond it cannot be shown as a date."""


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """One line of a node, or of the daemon itself (`node` None)."""

    timestamp: Annotated[float, msgspec.Meta(ge=0, lt=LAST_MOMENT)]
    """Seconds since 1970, from the line itself, else when it was read."""
    level: Level
    """`stdout` is that of a line without a severity, from either stream."""
    node: str | None
    message: str
    stream: Stream = "stdout"
    target: str | None = None
    fields: dict[str, Any] | None = None
    file: str | None = None
    line: int | None = None
    module_path: str | None = None
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""
