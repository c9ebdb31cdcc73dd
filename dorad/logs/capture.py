"""Reading a node's output pipe: bytes in, records out, nothing lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from dorad.logs.record import LogRecord, Stream

Sink = Callable[[Sequence[LogRecord]], None]
"""Gets the records of one read at a time, in order; must not block."""


class Capture:
    """Reads one pipe of one node until it ends. Needs a running event loop."""

    tail: deque[str]
    """The last 500 lines, as written by the node; for the failure report."""

    def __init__(self, fd: int, node: str, stream: Stream, sink: Sink) -> None:
        """Owns `fd` (the read end) from here on and closes it."""
        raise NotImplementedError

    async def wait_closed(self) -> None:
        """Until every writer has closed the pipe and all of it has reached the sink."""
        raise NotImplementedError

    def finish(self) -> None:
        """Read what is in the pipe now, then close it, whoever still holds its other end.

        To be called when the node has ended: a grandchild may keep the pipe open for ever.
        """
        raise NotImplementedError
