"""Escape text from nodes, files and robots, so that it cannot control the terminal.

Control characters can move the cursor, set the title, hide earlier output, or make the terminal
answer as if the user had typed. Bidirectional overrides change the visible order of text.
Characters without a shape hide text, and make two names look the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from math import isfinite

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\x85\u2028\u2029"
_SURROGATES = "\ud800-\udfff"
# What Unicode calls default ignorable (zero-width, fillers, selectors of variants, tags), and other
# controls of format without a shape.
_INVISIBLE = (
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Many of these above one letter cover the lines around it, and are slow to draw.
_MARKS = (
    "\u0300-\u034e\u0350-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
# Terminals such as kitty show pictures in cells with this character.
_PLACEHOLDER = "\U0010eeee"
_BEYOND_ASCII = f"\x7f-\x9f{_LINE_ENDS}{_BIDIRECTIONAL}{_SURROGATES}{_INVISIBLE}{_PLACEHOLDER}"
_PILED = f"(?<=[{_MARKS}]{{4}})[{_MARKS}]"
# Compiled at the first use, which few commands have: that takes longer than to import a module.
_ONE_LINE = f"[\x00-\x08\x0a-\x1f{_BEYOND_ASCII}]|{_PILED}"
_LINES = f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}]|{_PILED}"
_JSON = f"[{_BEYOND_ASCII}]|{_PILED}"


def visible(text: str) -> str:
    r"""Return `text` on one line with control characters escaped, such as `\x1b` or `\n`.

    These are C0 without tab, DEL, C1, bidirectional controls, line separators, surrogates,
    characters without a shape and placeholders of pictures; also the fifth and later marks above
    one letter.
    """
    return text if _is_plain(text) else re.sub(_ONE_LINE, _escaped, text)


def visible_lines(text: str, indent: str = "") -> str:
    """Do the same as `visible`, but keep newlines; `indent` starts every line but the first."""
    if _is_plain(text):
        return text
    text = re.sub(_LINES, _escaped, text)
    return text.replace("\n", f"\n{indent}") if indent else text


def visible_json(text: str) -> str:
    r"""Return a JSON text with these characters escaped as `\uXXXX`; its value is unchanged.

    JSON already escapes C0.
    """
    return text if _is_plain(text) else re.sub(_JSON, _escaped_in_json, text)


def local_time(seconds: float, pattern: str, unknown: str = "?") -> str:
    """Return a time that another program has given as text, as `time.strftime`, in local time.

    `seconds` are since 1970; `unknown` stands for what no calendar has.
    """
    try:
        return time.strftime(pattern, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return unknown


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return repr(match[0])[1:-1]
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.:-=+*#"
"""For a terminal that does not have the others."""


def bars(points: Sequence[float | None], width: int, *, letters: str = BARS) -> str:
    """Return a letter for each of `width` equal parts of the points: its largest, from 0 up.

    A part without a figure is a space.
    """
    most = max((each for each in points if each is not None and isfinite(each)), default=0.0)
    line = ""
    for place in range(width):
        part = points[place * len(points) // width : (place + 1) * len(points) // width]
        known = [each for each in part if each is not None and isfinite(each)]
        if not known:
            line += " "
        elif most <= 0:
            line += letters[0]
        else:
            part_of_most = min(1.0, max(0.0, max(known) / most))
            line += letters[round(part_of_most * (len(letters) - 1))]
    return line
