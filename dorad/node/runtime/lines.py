"""What the operators of one process print: whole lines, whoever else prints at the same time.

`print` writes its arguments, the blanks between them and the newline one by one, and Python is run
with `-u`, so that each would go out by itself and lines of several threads be mixed.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO


class WholeLines:
    """A text stream that holds back what a thread writes until its line is whole, or flushed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Write the lines that are whole now."""
        thread = threading.get_ident()
        whole, newline, rest = (self._begun.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._begun[thread] = rest
        if newline:
            self._stream.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Write what this thread has begun."""
        begun = self._begun.pop(threading.get_ident(), "")
        if begun:
            self._stream.write(begun)
        self._stream.flush()

    def flush_all(self) -> None:
        """Write what any thread has begun."""
        for thread in list(self._begun):
            self._stream.write(self._begun.pop(thread, ""))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Let stdout and stderr be written in whole lines from now on."""
    sys.stdout = WholeLines(sys.stdout)
    sys.stderr = WholeLines(sys.stderr)


def flush() -> None:
    """Write all that was begun, before the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, WholeLines):
            stream.flush_all()
        elif stream is not None:
            stream.flush()
