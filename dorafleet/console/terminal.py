"""Ask the terminal for its background, its name, and whether it shows pictures.

The colour of the background (OSC 11) chooses a light or a dark theme. Pictures in pixels need
kitty's graphics and, which cannot be asked for, placeholders in the text: so the name counts, too
(XTVERSION). tmux and screen answer with their own, or not at all.
"""

import fcntl
import logging
import os
import re
import select
import struct
import termios
import time
import tty
from typing import NamedTuple

PLACE = b"\x1b[6n"
"""Asks for the place of the cursor, which all terminals tell: their answer says that there is no
other one to wait for."""
QUESTIONS = b"\x1b]11;?\x1b\\\x1b[>q" + PLACE
"""The colour of the background and the name of the terminal, which not every one tells."""
PICTURE_QUESTIONS = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\" + PLACE
"""Whether it could show a picture of one pixel. Others might print that: it is only for those that
have said their names."""
MAX_BYTES = 4096
"""Bytes that are read in search of the answers."""
MAX_ANSWER = 256
"""Characters of an answer that comes late."""
LIGHT = 0.5
"""Brightness from which a background is light, of 1."""
KITTY_SINCE = (0, 28)
"""The first version of kitty with placeholders; every version of Ghostty has them."""

_COLOUR = re.compile(
    rb"\x1b\]11;rgba?:([0-9a-f]{1,4})/([0-9a-f]{1,4})/([0-9a-f]{1,4})[^\x07\x1b]*(?:\x07|\x1b\\)",
    re.IGNORECASE,
)
_NAME = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_PICTURE = re.compile(rb"\x1b_G([^\x1b]*)\x1b\\")
_PLACE = re.compile(rb"\x1b\[\d+;\d+R")
_LATE = re.compile(r"\x1b(?:\]11;[^\x07\x1b]*(?:\x07|\x1b\\)|P>\|[^\x1b]*\x1b\\|_G[^\x1b]*\x1b\\)")
_LATE_PLACE = re.compile(_PLACE.pattern.decode())
_TORN = re.compile(
    r"\x1b(?:\](?:1(?:1(;[^\x07\x1b]*\x1b?)?)?)?|P(?:>(\|[^\x1b]*\x1b?)?)?|_(G[^\x1b]*\x1b?)?"
    r"|\[[0-9;]*)?\Z"
)
"""An answer whose end is missing; a group matches if it cannot be anything else."""

_log = logging.getLogger(__name__)


class Answers(NamedTuple):
    """What a terminal has sent."""

    brightness: float | None
    """Of its background, from 0 to 1; None if it does not tell."""
    complete: bool
    """Whether no answer is missing."""
    typed: bytes
    """Everything else: keys of the operator."""
    name: str = ""
    """The name and version of the terminal; empty if it does not tell."""
    takes_pictures: bool = False
    torn: bytes = b""
    """The beginning of an answer, or of a key, that has not come to its end."""


def answers_in(data: bytes) -> Answers:
    """Return the answers to questions, and the keys that were typed meanwhile."""
    brightness, name, takes_pictures = None, "", False
    if (colour := _COLOUR.search(data)) is not None:
        red, green, blue = (int(each, 16) / (16 ** len(each) - 1) for each in colour.groups())
        brightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        data = data[: colour.start()] + data[colour.end() :]
    if (named := _NAME.search(data)) is not None:
        name = named[1].decode(errors="replace")
        data = data[: named.start()] + data[named.end() :]
    if (picture := _PICTURE.search(data)) is not None:
        takes_pictures = picture[1] == b"i=31;OK"
        data = data[: picture.start()] + data[picture.end() :]
    if (place := _PLACE.search(data)) is not None:
        typed = data[: place.start()] + data[place.end() :]
        return Answers(brightness, True, typed, name, takes_pictures)
    torn = _TORN.search(data.decode("latin-1"))
    end = len(data) if torn is None else torn.start()
    return Answers(brightness, False, data[:end], name, takes_pictures, data[end:])


def has_placeholders(name: str) -> bool:
    """Return True if a terminal of this name shows pictures in cells of text."""
    match = re.fullmatch(r"(kitty|ghostty)[ (](\d+)\.(\d+).*", name, re.ASCII)
    if match is None:
        return False
    return match[1] == "ghostty" or (int(match[2][:9]), int(match[3][:9])) >= KITTY_SINCE


class LateAnswers:
    """Takes answers that come late out of what the terminal sends: they are no keys."""

    def __init__(self, torn: str = "") -> None:
        """`torn` is what has come of the first one."""
        self._held = torn
        self._missing = True

    def keys(self, data: str) -> str:
        """Return what the operator has typed; what may begin an answer is held back."""
        if not self._missing:
            return data
        data, self._held = self._held + data, ""
        if (place := _LATE_PLACE.search(data)) is not None:
            # The last answer. Later ones are those to other questions.
            self._missing = False
            return _LATE.sub("", data[: place.start()]) + data[place.end() :]
        data = _LATE.sub("", data)
        torn = _TORN.search(data)
        if torn is None or len(torn[0]) > MAX_ANSWER:
            return data
        self._held = torn[0]
        return data[: torn.start()]

    def given_up(self) -> str:
        """Return what was held back, unless it must be an answer: its rest has not come."""
        torn = _TORN.match(self._held)
        if torn is None or any(torn.groups()):
            return ""
        held, self._held = self._held, ""
        return held


def ask(keys: int, screen: int, timeout: float, questions: bytes = QUESTIONS) -> Answers:
    """Ask the terminal, and wait `timeout` seconds at most.

    `keys` is the descriptor that it is read from, `screen` the one that it is written to. Raises
    OSError and termios.error if they are no terminal.
    """
    before, data = termios.tcgetattr(keys), b""
    deadline = time.monotonic() + timeout
    try:
        tty.setcbreak(keys, termios.TCSANOW)
        os.write(screen, questions)
        while not answers_in(data).complete and len(data) < MAX_BYTES:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([keys], [], [], left)[0]:
                break
            new = os.read(keys, MAX_BYTES - len(data))
            if not new:
                break
            data += new
    finally:
        termios.tcsetattr(keys, termios.TCSANOW, before)
    answers = answers_in(data)
    _log.debug("terminal %r, brightness of the background: %s", answers.name, answers.brightness)
    return answers


def cell_size(screen: int) -> tuple[int, int] | None:
    """Return the width and height of a cell in pixels; None if the terminal does not tell."""
    try:
        size = fcntl.ioctl(screen, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns, width, height = struct.unpack("HHHH", size)
    if not (rows and columns and width >= columns and height >= rows):
        return None
    return width // columns, height // rows
