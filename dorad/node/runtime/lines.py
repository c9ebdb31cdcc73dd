"""Output streams that write whole lines, so that lines of several operators do not mix.

`print` writes its arguments, the blanks between them and the newline separately. Python is run with
`-u`, so each of these would be written at once.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO


class WholeLines:
    """A text stream that buffers what a thread writes until its line is complete, or flushed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._partial: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Write the lines that are complete now."""
        thread = threading.get_ident()
        whole, newline, rest = (self._partial.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._partial[thread] = rest
        if newline:
            self._stream.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Write the incomplete line of this thread."""
        partial = self._partial.pop(threading.get_ident(), "")
        if partial:
            self._stream.write(partial)
        self._stream.flush()

    def flush_all(self) -> None:
        """Write the incomplete lines of all threads."""
        for thread in list(self._partial):
            self._stream.write(self._partial.pop(thread, ""))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Write stdout and stderr in whole lines from now on."""
    sys.stdout = WholeLines(sys.stdout)
    sys.stderr = WholeLines(sys.stderr)


def flush() -> None:
    """Write all incomplete lines, before the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, WholeLines):
            stream.flush_all()
        elif stream is not None:
            stream.flush()
