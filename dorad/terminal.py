"""Make text from nodes, files and robots safe to show: it must not control a terminal.

A terminal acts on control characters: they move the cursor, set the title, hide what was printed or
answer as if the user had typed. Bidirectional overrides reorder what the eye reads.
"""

from __future__ import annotations

import re

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\x85\u2028\u2029"
_SURROGATES = "\ud800-\udfff"
_BEYOND_ASCII = f"\x7f-\x9f{_LINE_ENDS}{_BIDIRECTIONAL}{_SURROGATES}"
_ONE_LINE = re.compile(f"[\x00-\x08\x0a-\x1f{_BEYOND_ASCII}]")
_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}]")
_JSON = re.compile(f"[{_BEYOND_ASCII}]")


def visible(text: str) -> str:
    r"""Return `text` on one line with its control characters spelled out, such as `\x1b` or `\n`.

    Tabs stay. Spelled out are C0, DEL, C1, bidirectional controls, line separators, surrogates.
    """
    return text if text.isprintable() else _ONE_LINE.sub(_spelled, text)


def visible_lines(text: str, indent: str = "") -> str:
    """Return the same with its newlines kept; `indent` begins every line but the first."""
    if text.isprintable():
        return text
    text = _LINES.sub(_spelled, text)
    return text.replace("\n", f"\n{indent}") if indent else text


def visible_json(text: str) -> str:
    r"""Return a JSON text with the same characters escaped as `\uXXXX`: its value is unchanged.

    JSON escapes C0 by itself.
    """
    return text if text.isprintable() else _JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _spelled(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
