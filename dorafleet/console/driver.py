"""A driver that sends a frame only after the terminal has shown the last one.

Textual queues frames without limit of age: in a slow line a picture would be seconds old. Each
frame ends with `ESC[6n`; a terminal answers once it has read that far. While a frame is under way,
the app collects changes and paints them in one go. A terminal that takes nothing ends
the program as soon as it is asked to end; one that is gone, at once.
"""

from __future__ import annotations

import re
import select
import signal
import time
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from textual import constants
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import CursorPosition, Key
from textual.message import Message

from dorafleet.console.model.pace import TypingPace
from dorafleet.console.terminal import LateAnswers, cell_size
from dorafleet.console.view.placeholders import USUAL_CELL
from dorafleet.console.view.terse import ShownCells

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.timer import Timer

    from dorafleet.console.frames import Frames

QUESTION = "\x1b[6n"
"""Asks the terminal where its cursor is."""
LAST_ANSWER_S = 0.3
"""Seconds that the terminal has for its last answers, when it is given back."""
LAST_WRITES_S = 1.0
"""Seconds that it has to take what was written."""
WATCH_S = 0.5
"""Time between two looks whether the terminal is still there."""
TORN = ("[", "O")
"""What follows `esc` in keys such as the arrows; the rest of one may come late."""


class FrameShown(Message):
    """The terminal has answered."""


class KeysLeftOut(Message):
    """Keys came faster than anybody types them, and not all were taken."""


MOVES = re.compile(r"\x1b\[\d+;\d+H")
"""Moves the cursor, as each frame does; what sets a mode of the terminal does not."""


class KeyParser(XTermParser):
    """Keeps `esc` and the key that was typed next apart, which a slow line delivers as one.

    Textual takes them for a key with alt, and drops `esc` before most characters. No key of the
    console is typed with alt.
    """

    late: ClassVar[LateAnswers | None] = None
    """Answers that had not come when the program began."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._fed_at = time.monotonic()

    def feed(self, data: str) -> Iterable[Message]:
        """Return the events of what the terminal sends."""
        if self.late is not None and data:  # nothing is the end of all keys
            self._fed_at = time.monotonic()
            data = self.late.keys(data)
            if not data:
                return
        yield from super().feed(data)

    def tick(self) -> Iterable[Message]:
        """Return the events of keys that were waiting for more."""
        late, waited = self.late, time.monotonic() - self._fed_at
        if late and waited >= constants.ESCAPE_DELAY and (held := late.given_up()):
            yield from super().feed(held)
        yield from super().tick()

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        if alt and sequence not in TORN:
            yield Key("escape", "\x1b")
        yield from super()._sequence_to_key_events(sequence)


linux_driver.XTermParser = KeyParser  # type: ignore[attr-defined]


def keys_of(text: str) -> list[Key]:
    """Return the events of keys that a terminal has sent."""
    parser = KeyParser()
    return [each for each in (*parser.feed(text), *parser.tick()) if isinstance(each, Key)]


def _ready(terminal: int, events: int) -> bool:
    """Return True if one of these events is there, or the terminal is gone."""
    poll = select.poll()
    poll.register(terminal, events)
    return bool(poll.poll(0))


class Paced(Protocol):
    """An app that paints at the pace of its terminal."""

    frames: Frames


class PacedDriver(LinuxDriver):
    """Textual's driver with a question after each frame."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wrote = False
        self._asks = False
        self._unanswered = 0
        self._watch: Timer | None = None
        self._shown = ShownCells()
        self._typing = TypingPace()
        self._whole = 0

    def start_application_mode(self) -> None:
        """Take the terminal."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._unanswered, self._asks = 0, self.input_tty
        self._forget()
        self._watch = self._app.set_interval(WATCH_S, self._end_without_terminal)

    def stop_application_mode(self) -> None:
        """Give the terminal back, without answers that a shell would take for keys."""
        self._asks = False
        if self._watch is not None:
            self._watch.stop()
        if self._writes and (ending := cast(Paced, self._app).frames.picture.end()):
            super().write(ending)
        deadline = time.monotonic() + LAST_ANSWER_S
        while self._unanswered > 0 and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread that reads keys takes them
        super().stop_application_mode()

    def close(self) -> None:
        """End the thread that writes; a terminal that takes nothing is not waited for."""
        ending = Thread(target=super().close, daemon=True)
        ending.start()
        ending.join(LAST_WRITES_S)

    def _end_without_terminal(self) -> None:
        """End the program if the terminal is gone: not every process gets a SIGHUP then."""
        if _ready(self.fileno, 0):
            self._app.exit(return_code=128 + signal.SIGHUP)

    def _is_blocked(self) -> bool:
        """Return True while the terminal has not taken all that was written."""
        return not _ready(self.fileno, select.POLLOUT)

    def _sigcont_application(self, *_args: object) -> None:
        """Take the terminal again, unless it was not given back: Textual would take it twice."""
        if self._must_signal_resume:
            super()._sigcont_application()

    @property
    def _writes(self) -> bool:
        """Whether the thread that writes has not ended, as it does when the terminal is gone."""
        return self._writer_thread is not None and self._writer_thread.is_alive()

    def _forget(self) -> None:
        """Take nothing for shown."""
        self._shown.forget()
        picture = cast(Paced, self._app).frames.picture
        picture.forget()
        picture.cell = cell_size(self.fileno) or USUAL_CELL

    def write(self, data: str) -> None:
        """Write to the terminal, unless it is gone. A picture is part of the next frame."""
        if not self._writes:
            return
        frames = cast(Paced, self._app).frames
        if self._whole != frames.whole:
            self._whole = frames.whole
            self._forget()
        sent = frames.picture.take() if MOVES.search(data) else ""
        if new := sent + self._shown.new(data):
            super().write(new)
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
        self._app.call_later(app.frames.sent, time.monotonic(), self._is_blocked)

    def process_message(self, message: Message) -> None:
        """Take answers to the question; pass everything else on."""
        if isinstance(message, Key) and not self._typing.takes(time.monotonic()):
            if self._typing.left_out > 1:
                return
            message = KeysLeftOut()
        if isinstance(message, CursorPosition):
            self._unanswered -= 1
            message = FrameShown()
        super().process_message(message)
