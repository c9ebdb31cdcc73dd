"""A screen of the console as an SVG: one text element for each run of one style.

Textual's own export is four times as large, and loses the spaces at the start of a run in some
programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.terminal_theme import SVG_EXPORT_THEME

if TYPE_CHECKING:
    from rich.color import Color
    from rich.style import Style

    from dorafleet.console.app import ConsoleApp

ACROSS, DOWN = 8.4, 18.0
"""Width and height of a character, pixels."""
PAD = 10.0
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def drawing(app: ConsoleApp) -> str:
    """Return what is on the screen."""
    strips = app.screen._compositor.render_strips()
    wide, tall = app.size.width * ACROSS + 2 * PAD, app.size.height * DOWN + 2 * PAD
    back, front = "#0d1117", "#e6edf3"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {tall:.0f}" '
            f'font-family="{FONT}" font-size="14" fill="{front}">'
        ),
        f'<rect width="100%" height="100%" rx="6" fill="{back}"/>',
    ]
    for row, strip in enumerate(strips):
        column, y = 0, PAD + row * DOWN
        for text, style, _ in strip:
            cells = cell_len(text)
            parts += _run(text, style, PAD + column * ACROSS, y, cells * ACROSS, back, front)
            column += cells
    return "\n".join([*parts, "</svg>", ""])


def _run(
    text: str, style: Style | None, x: float, y: float, wide: float, back: str, front: str
) -> list[str]:
    colour, ground = front, back
    if style is not None:
        colour = _hex(style.color, front)
        ground = _hex(style.bgcolor, back)
        if style.reverse:
            colour, ground = ground, colour
    found = []
    if ground != back:
        found.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{DOWN}" fill="{ground}"/>'
        )
    shown = text.rstrip()
    start = len(shown) - len(shown.lstrip())
    shown = shown.lstrip()
    if not shown:
        return found
    x += start * ACROSS
    bold = ' font-weight="bold"' if style is not None and style.bold else ""
    dim = ' opacity="0.6"' if style is not None and style.dim else ""
    length = f' textLength="{cell_len(shown) * ACROSS:.1f}" lengthAdjust="spacingAndGlyphs"'
    paint = "" if colour == front else f' fill="{colour}"'
    # Spaces inside would be collapsed.
    words = escape(shown).replace("  ", "\u00a0\u00a0")
    found.append(f'<text x="{x:.1f}" y="{y + 13.5:.1f}"{length}{paint}{bold}{dim}>{words}</text>')
    return found


def _hex(colour: Color | None, usual: str) -> str:
    if colour is None or colour.is_default:
        return usual
    return colour.get_truecolor(SVG_EXPORT_THEME).hex
