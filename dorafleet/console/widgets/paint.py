"""From spans to Textual's strips; and the filter that lets only visible text reach the terminal."""

from collections.abc import Sequence
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip

from dorafleet.console.themes import Palette, is_picture
from dorafleet.console.view.placeholders import PLACEHOLDER
from dorafleet.console.view.rows import Span, cut
from dorafleet.console.view.words import ELLIPSIS, clean, width


def strip(
    spans: Sequence[Span], columns: int, palette: Palette, base: Style, over: str = ""
) -> Strip:
    """Return a line of exactly `columns`; the style `over` is laid over all of it."""
    whole = base + palette[over] if over else base
    segments: list[Segment] = []
    used = 0
    for text, style in cut(spans, columns):
        used += width(text)
        if style.startswith("#"):
            # A pixel has both colours: adding thousands of styles would take most of the time.
            segments.append(Segment(text, palette[style]))
        else:
            _append(segments, text, whole + palette[style] if style else whole)
    if used < columns:
        _append(segments, " " * (columns - used), whole)
    return Strip(segments, columns)


def _append(segments: list[Segment], text: str, style: Style) -> None:
    """Add a text; one in the style of the last one is added to it, which saves many bytes."""
    if segments and segments[-1].style == style:
        segments[-1] = Segment(segments[-1].text + text, style)
    else:
        segments.append(Segment(text, style))


@lru_cache(8192)
def _visible(text: str) -> str:
    return clean(text)


class VisibleText(LineFilter):
    """Replaces control and bidirectional characters in every line, of whichever widget.

    `more` marks what was cut off, where the terminal may not show `…`.
    """

    def __init__(self, more: str) -> None:
        super().__init__()
        self._more = more

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return segments whose text cannot control the terminal."""
        return [self._shown(segment) for segment in segments]

    def _shown(self, segment: Segment) -> Segment:
        text = segment.text
        if segment.control or (text.isascii() and text.isprintable()):
            return segment
        if PLACEHOLDER in text and is_picture(segment.style):
            return segment
        shown = _visible(text).replace(ELLIPSIS, self._more)
        return segment if shown == text else Segment(shown, segment.style)
