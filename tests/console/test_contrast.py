"""Colours are readable on each ground that text has."""

import pytest
from rich.color import Color

from dorafleet.console.themes import Palette, textual_themes

READABLE = 4.5
"""The ratio that WCAG 2 asks for."""
TEXTS = (
    *("fail", "warn", "unreach", "stale", "update", "busy", "ok", "dim", "mark", "head", "key"),
    *("line1", "line2", "line3", "line4"),
)


def luminance(color: Color) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (each / 255 for each in color.get_truecolor())
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["dark", "light", "safe"])
def test_each_text_can_be_read_on_each_ground(name: str) -> None:
    palette = Palette(name)
    (theme,) = (each for each in textual_themes() if each.name == f"console-{name}")
    assert theme.background is not None
    grounds = [Color.parse(theme.background), palette["cursor"].bgcolor, palette["bar"].bgcolor]
    for text in TEXTS:
        color = palette[text].color
        assert color is not None
        for ground in grounds:
            assert ground is not None
            assert contrast(color, ground) >= READABLE, (text, ground.name)
