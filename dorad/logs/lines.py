"""Cutting a stream of bytes into lines of bounded length."""

from __future__ import annotations

MAX_LINE = 1 << 20
"""Bytes of a line that are kept; the rest is dropped."""
CUT_MARKER = " … [line cut at 1 MiB]".encode()


class LineSplitter:
    """Collects pieces of a stream; gives out the lines that are complete, without newlines.

    A carriage return before the newline goes too. What is longer than 1 MiB is given out as soon
    as that is clear, cut and marked; memory stays bounded by it.
    """

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0
        self._skipping = False
        """Whether the stream is inside the dropped rest of a line that was cut."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end with `data`."""
        first, *rest = data.split(b"\n")
        lines: list[bytes] = []
        self._append(first, lines)
        if rest:
            self._finish_line(lines)
            last = rest.pop()
            lines += map(_complete, rest)
            self._append(last, lines)
        return lines

    def end(self) -> list[bytes]:
        """The last line, if the stream ended without a newline."""
        lines: list[bytes] = []
        if self._partial:
            self._finish_line(lines)
        return lines

    def _append(self, piece: bytes, lines: list[bytes]) -> None:
        if self._skipping or not piece:
            return
        self._partial.append(piece)
        self._size += len(piece)
        if self._size > MAX_LINE:
            self._finish_line(lines)
            self._skipping = True

    def _finish_line(self, lines: list[bytes]) -> None:
        if not self._skipping:
            lines.append(_complete(b"".join(self._partial)))
        self._partial.clear()
        self._size = 0
        self._skipping = False


def _complete(line: bytes) -> bytes:
    if len(line) > MAX_LINE:
        return line[:MAX_LINE] + CUT_MARKER
    return line.removesuffix(b"\r")
