"""Log records as text: pretty, compact, and JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from dorad.logs.record import LogRecord

Format = Literal["pretty", "compact", "json"]
Formatter = Callable[[LogRecord], str]


def formatter(
    kind: Format,
    *,
    dataflow_id: str,
    nodes: Sequence[str] = (),
    color: bool = False,
    daemon_id: str | None = None,
) -> Formatter:
    """A function from a record to its line(s), without the last newline.

    `color` gives every node of `nodes` a colour of its own; never for `json`.
    """
    raise NotImplementedError
