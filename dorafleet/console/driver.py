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
LAST_ANSWER_S = 0.3
"""Seconds that the terminal has for its last answers, when it is given back."""


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
        self._asks = False
        self._unanswered = 0

    def start_application_mode(self) -> None:
        """Take the terminal."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._unanswered, self._asks = 0, self.input_tty

    def stop_application_mode(self) -> None:
        """Give the terminal back, without answers that a shell would take for keys."""
        self._asks = False
        deadline = time.monotonic() + LAST_ANSWER_S
        while self._unanswered > 0 and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread that reads keys takes them
        super().stop_application_mode()

    def _sigcont_application(self, *_args: object) -> None:
        """Take the terminal again, unless it was not given back: Textual would take it twice."""
        if self._must_signal_resume:
            super()._sigcont_application()

    def write(self, data: str) -> None:
        """Write to the terminal."""
        super().write(data)
        self._wrote = True

    def flush(self) -> None:
        """End a frame."""
        super().flush()
        if not (self._wrote and self._asks):
            return
        self._wrote = False
        self._unanswered += 1
        super().write(QUESTION)
        # Later: Textual may send a frame in two parts, and would drop the second one.
        app = cast(Paced, self._app)
        self._app.call_later(app.frame_sent, time.monotonic())

    def process_message(self, message: Message) -> None:
        """Take answers to the question; pass everything else on."""
        if isinstance(message, CursorPosition):
            self._unanswered -= 1
            message = FrameShown()
        super().process_message(message)
