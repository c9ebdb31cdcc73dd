"""Themes: which colours the named styles have, and Textual's own colours beside them."""

from collections.abc import Mapping
from functools import lru_cache

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

_DARK = {
    "fail": "bold #ff6b6b",
    "warn": "#ffc14d",
    "unreach": "bold #c792ea",
    "stale": "bold #c792ea",
    "update": "#6cb6ff",
    "busy": "#56b6c2",
    "ok": "#7ec77e",
    "dim": "#9aa4af",
    "name": "bold",
    "mark": "bold #ffc14d",
    "head": "bold #9aa4af",
    "title": "bold",
    "key": "bold #6cb6ff",
    "rule": "#484f58",
    "line1": "#6cb6ff",
    "line2": "#7ec77e",
    "line3": "#ffc14d",
    "line4": "#c792ea",
    "found": "bold reverse",
    "cursor": "on #2d333b",
    "bar": "on #1c2128",
}
_LIGHT = _DARK | {
    "fail": "bold #c4232b",
    "warn": "#8a5a00",
    "unreach": "bold #7b2fb5",
    "stale": "bold #7b2fb5",
    "update": "#0757ba",
    "busy": "#0f6b75",
    "ok": "#1a6e2e",
    "dim": "#59636e",
    "mark": "bold #8a5a00",
    "head": "bold #57606a",
    "key": "bold #0757ba",
    "rule": "#b0b8c0",
    "line1": "#0757ba",
    "line2": "#1a6e2e",
    "line3": "#8a5a00",
    "line4": "#7b2fb5",
    "cursor": "on #dbe9f9",
    "bar": "on #eaeef2",
}
# Okabe and Ito's colours, which people with any kind of colour blindness tell apart; lighter
# where they would be hard to read on a dark ground.
_SAFE = _DARK | {
    "fail": "bold #ff8533",
    "warn": "#f0e442",
    "unreach": "bold #dd8ab8",
    "stale": "bold #dd8ab8",
    "update": "#56b4e9",
    "busy": "#8fa8ff",
    "ok": "#2dc08f",
    "mark": "bold #f0e442",
    "key": "bold #56b4e9",
    "line1": "#56b4e9",
    "line2": "#2dc08f",
    "line3": "#f0e442",
    "line4": "#dd8ab8",
}
_ANSI = {
    "fail": "bold red",
    "warn": "yellow",
    "unreach": "bold magenta",
    "stale": "bold magenta",
    "update": "blue",
    "busy": "cyan",
    "ok": "green",
    "dim": "dim",
    "name": "bold",
    "mark": "bold yellow",
    "head": "bold",
    "title": "bold",
    "key": "bold cyan",
    "rule": "dim",
    "line1": "cyan",
    "line2": "green",
    "line3": "yellow",
    "line4": "magenta",
    "found": "bold reverse",
    "cursor": "reverse",
    "bar": "",
}
_MONO = dict.fromkeys(_ANSI, "") | {
    "fail": "bold reverse",
    "warn": "bold",
    "unreach": "bold",
    "stale": "bold reverse",
    "dim": "dim",
    "name": "bold",
    "mark": "bold",
    "head": "bold underline",
    "title": "bold",
    "key": "bold",
    "rule": "dim",
    "found": "bold reverse",
    "cursor": "reverse",
}

_TABLES: Mapping[str, Mapping[str, str]] = {
    "dark": _DARK,
    "light": _LIGHT,
    "safe": _SAFE,
    "ansi": _ANSI,
    "mono": _MONO,
}

PICTURE = "picture "
_PICTURE = Style.from_meta({"picture": True})

NAMES = tuple(_TABLES)
USES_TERMINAL_COLOURS = ("ansi", "mono")
"""Themes whose background is that of the terminal."""


class Palette:
    """The style of each name in one theme."""

    def __init__(self, theme: str) -> None:
        self.theme = theme
        self._styles = {name: Style.parse(text) for name, text in _TABLES[theme].items()}
        self._none = Style()

    def __getitem__(self, name: str) -> Style:
        """Return a style.

        `#rrggbb` and `#rrggbb on #rrggbb` are colours of a picture, `picture #rrggbb` is that of
        cells which show the picture with this number.
        """
        if name.startswith("#"):
            return _pixels(name)
        if name.startswith(PICTURE):
            return _pixels(name.removeprefix(PICTURE)) + _PICTURE
        return self._styles.get(name, self._none)


@lru_cache(1 << 14)
def _pixels(name: str) -> Style:
    """Return the style of two pixels. A picture has thousands: `Style.parse` would be too slow."""
    upper, _, lower = name.partition(" on ")
    text, ground = (Color.from_rgb(*bytes.fromhex(each[1:])) for each in (upper, lower or upper))
    return Style.from_color(text, ground if lower else None)


def is_picture(style: Style | None) -> bool:
    """Return True for the style of cells that show a picture in pixels."""
    return style is not None and bool(style.meta.get("picture"))


def forget_pixels() -> None:
    """Free the styles of pixels."""
    _pixels.cache_clear()


def textual_themes() -> list[Theme]:
    """Return the themes for Textual's own widgets."""

    def theme(name: str, background: str, text: str, accent: str, *, dark: bool) -> Theme:
        return Theme(
            name=f"console-{name}",
            primary=accent,
            accent=accent,
            background=background,
            surface=background,
            panel=background,
            foreground=text,
            dark=dark,
        )

    return [
        theme("dark", "#0d1117", "#e6edf3", "#6cb6ff", dark=True),
        theme("light", "#ffffff", "#1f2328", "#0757ba", dark=False),
        theme("safe", "#0d1117", "#e6edf3", "#56b4e9", dark=True),
        theme("ansi", "ansi_default", "ansi_default", "ansi_cyan", dark=True),
        theme("mono", "ansi_default", "ansi_default", "ansi_default", dark=True),
    ]
