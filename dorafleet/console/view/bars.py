"""The lines above and below each screen."""

import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dorafleet.console.view import words
from dorafleet.console.view.glyphs import STATES
from dorafleet.console.view.rows import Span, plain
from dorafleet.console.view.words import clean, fit, width

MIN_SIZE = (60, 15)
"""Below this many columns and lines, one line says so."""

MAX_MESSAGE_LINES = 6

_TRIPS_MS = (50, 100, 200, 500, 1000, 2000, 5000)


class Crumbs(NamedTuple):
    """What the second line says."""

    path: str
    filter: str = ""
    order: str = ""
    amount: str = ""
    note: str = ""
    """Such as `paused`."""


def fits(columns: int, lines: int) -> bool:
    """Return True if a terminal is large enough to show anything."""
    return columns >= MIN_SIZE[0] and lines >= MIN_SIZE[1]


def round_trip(seconds: float | None) -> str:
    """Return a round trip as the step that it stays below, so that it seldom changes."""
    if seconds is None:
        return ""
    for step in _TRIPS_MS:
        if seconds * 1e3 < step:
            return f"link <{step}ms"
    return "link >5s"


def freshness(
    *, connected: bool, stale: bool, fresh_at: float, retry_at: float | None, now: float
) -> Span:
    """Return `live`, or since when nothing has been heard and when the next attempt is made."""
    if connected and not stale:
        return ("live", "ok")
    text = "STALE" if not fresh_at else f"STALE {words.age(now - fresh_at)}"
    if not connected and retry_at is not None:
        text += f" (retry in {max(0, round(retry_at - now))}s)"
    elif not connected and not fresh_at:
        text = "connecting"
    return (text, "stale")


def top_line(
    server: str,
    fresh: Span,
    trip: str,
    counts: Mapping[str, int],
    total: int,
    at: float,
    columns: int,
    *,
    stale: bool,
    limits: str = "",
) -> list[Span]:
    """Return the first line: the server, freshness, round trip, states, and the time of day.

    `limits` says why nothing can be changed; empty if it can.
    """
    spans: list[Span] = [(" ", ""), (clean(server), "title"), ("  ", ""), fresh]
    if limits:
        spans += [("  ", ""), (limits, "warn")]
    if trip and not stale:
        spans += [("  ", ""), (trip, "dim")]
    spans.append((f"  {words.counted(total, 'robot')}", ""))
    if counts and stale:
        # Nothing is said to be well that may have changed.
        spans.append((": not known now", "stale"))
    elif counts:
        spans.append((":", ""))
        for state, count in counts.items():
            spans += [(" ", ""), (f"{STATES[state][1]} {count}", state), (" ", "")]
    clock = time.strftime("%H:%M", time.localtime(at))
    return _with_end(spans, (clock + " ", "dim"), columns)


def crumb_line(crumbs: Crumbs, columns: int, *, ascii_only: bool = False) -> list[Span]:
    """Return the second line: where this is, the filter, the order, how much is shown."""
    spans: list[Span] = [(" ", ""), (clean(crumbs.path), "title")]
    if crumbs.filter:
        spans += [("   filter: ", "dim"), (clean(crumbs.filter), "key")]
    if crumbs.note:
        spans += [("   ", ""), (clean(crumbs.note), "warn")]
    right: list[Span] = []
    if crumbs.order:
        right += [("order: ", "dim"), (crumbs.order, ""), ("   ", "")]
    right.append((clean(crumbs.amount) + " ", ""))
    left_columns = columns - width(plain(right)) - 1
    text = plain(spans)
    if width(text) > left_columns:
        spans = [(fit(text, max(left_columns, 0), ascii_only=ascii_only), "title")]
    gap = columns - width(plain(spans)) - width(plain(right))
    return [*spans, (" " * max(gap, 1), ""), *right]


def message_lines(text: str, style: str, columns: int) -> list[list[Span]]:
    """Return a message, such as a long command, on as many lines as it needs, six at most."""
    wrapped = textwrap.wrap(
        clean(text), max(columns - 2, 10), max_lines=MAX_MESSAGE_LINES, placeholder=" …"
    )
    return [[(" " + line, style)] for line in wrapped] or [[]]


def key_line(keys: Iterable[tuple[str, str]], columns: int) -> list[Span]:
    """Return the keys that work now, as many as fit; there is always room for the last one."""
    spans: list[Span] = [(" ", "")]
    for key, label in _fitting(keys, columns):
        spans += [(key, "key"), (f" {label}  ", "dim")]
    return spans


def key_at(keys: Iterable[tuple[str, str]], columns: int, x: int) -> str | None:
    """Return the key that `key_line` shows at `x`; None between two of them."""
    left = 1
    for key, label in _fitting(keys, columns):
        right = left + width(key) + 1 + width(label)
        if left <= x < right:
            return key
        left = right + 2
    return None


def _fitting(keys: Iterable[tuple[str, str]], columns: int) -> list[tuple[str, str]]:
    """Return the keys for which there is room."""
    wanted = list(keys)
    sizes = [width(key) + 1 + width(label) + 2 for key, label in wanted]
    left = columns - 1
    shown = wanted
    if sum(sizes) > left and wanted:
        left -= sizes[-1]
        shown = []
        for each, wide in zip(wanted[:-1], sizes, strict=False):
            if wide > left:
                break
            left -= wide
            shown.append(each)
        shown.append(wanted[-1])
    return shown


def rule_line(text: str, columns: int, rule: str, style: str = "title") -> list[Span]:
    """Return a heading, followed by a line to the end."""
    text = f" {text} "
    return [(text, style), (rule * max(0, columns - width(text) - 1), "rule")]


def _with_end(spans: Sequence[Span], end: Span, columns: int) -> list[Span]:
    gap = columns - width(plain(spans)) - width(end[0])
    return [*spans, (" " * gap, ""), end] if gap > 0 else list(spans)
