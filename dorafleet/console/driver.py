"""A driver that sends a frame only after the terminal has shown the last one.

Textual queues frames without limit of age: in a slow line a picture would be seconds old. Each
frame ends with `ESC[6n`; a terminal answers once it has read that far. While a frame is under way,
the app collects changes and paints them in one go.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, cast

from textual.drivers.linux_driver import LinuxDriver
from textual.events import CursorPosition
from textual.message import Message

QUESTION = "\x1b[6n"
"""Asks the terminal where its cursor is."""


class FrameShown(Message):
    """The terminal has answered."""


class Paced(Protocol):
    """What the app does about the pace."""

    def frame_sent(self, now: float) -> None:
        """Collect changes from now on."""


class PacedDriver(LinuxDriver):
    """Textual's driver with a question after each frame."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wrote = False

    def write(self, data: str) -> None:
        """Write to the terminal."""
        super().write(data)
        self._wrote = True

    def flush(self) -> None:
        """End a frame."""
        super().flush()
        if not self._wrote or self._key_thread is None or not self.input_tty:
            return
        self._wrote = False
        super().write(QUESTION)
        cast(Paced, self._app).frame_sent(time.monotonic())

    def process_message(self, message: Message) -> None:
        """Take answers to the question; pass everything else on."""
        if isinstance(message, CursorPosition):
            message = FrameShown()
        super().process_message(message)
