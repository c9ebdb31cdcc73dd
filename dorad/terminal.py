"""Escape text from nodes, files and robots, so that it cannot control the terminal.

Control characters can move the cursor, set the title, hide earlier output, or make the terminal
answer as if the user had typed. Bidirectional overrides change the visible order of text.
"""

from __future__ import annotations

import re
import time

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\x85\u2028\u2029"
_SURROGATES = "\ud800-\udfff"
_BEYOND_ASCII = f"\x7f-\x9f{_LINE_ENDS}{_BIDIRECTIONAL}{_SURROGATES}"
_ONE_LINE = re.compile(f"[\x00-\x08\x0a-\x1f{_BEYOND_ASCII}]")
_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}]")
_JSON = re.compile(f"[{_BEYOND_ASCII}]")


def visible(text: str) -> str:
    r"""Return `text` on one line with control characters escaped, such as `\x1b` or `\n`.

    These are C0 without tab, DEL, C1, bidirectional controls, line separators and surrogates.
    """
    return text if text.isprintable() else _ONE_LINE.sub(_escaped, text)


def visible_lines(text: str, indent: str = "") -> str:
    """Do the same as `visible`, but keep newlines; `indent` starts every line but the first."""
    if text.isprintable():
        return text
    text = _LINES.sub(_escaped, text)
    return text.replace("\n", f"\n{indent}") if indent else text


def visible_json(text: str) -> str:
    r"""Return a JSON text with these characters escaped as `\uXXXX`; its value is unchanged.

    JSON already escapes C0.
    """
    return text if text.isprintable() else _JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def local_time(seconds: float, pattern: str, unknown: str = "?") -> str:
    """Return a time that another program has given as text, as `time.strftime`, in local time.

    `seconds` are since 1970; `unknown` stands for what no calendar has.
    """
    try:
        return time.strftime(pattern, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return unknown


def _escaped(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
