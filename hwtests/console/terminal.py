"""A terminal for a program: a pty, and what terminals answer."""

from __future__ import annotations

import fcntl
import pty
import struct
import termios

QUESTION = b"\x1b[6n"
ANSWER = b"\x1b[1;1R"


def terminal(columns: int = 100, lines: int = 30) -> tuple[int, int]:
    """Return the two ends of a terminal of this size; the second is the program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return ours, theirs
