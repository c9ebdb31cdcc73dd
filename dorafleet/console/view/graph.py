"""A graph as lines of characters: boxes, arrows, and rates and drops on the arrows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.view import words
from dorafleet.console.view.graphlayout import LABEL, MAX_NAME, layout
from dorafleet.console.view.words import clean, fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorafleet.console.model.topology import Arrow, Topology
    from dorafleet.console.view.glyphs import Glyphs
    from dorafleet.console.view.graphlayout import Route
    from dorafleet.console.view.rows import Span

_STYLES: Mapping[str, str] = {
    "failed": "fail",
    "restarting": "warn",
    "degraded": "warn",
    "starting": "update",
    "pending": "unreach",
    "stopped": "dim",
}
_LETTERS: Mapping[str, str] = {
    "failed": "x",
    "restarting": "!",
    "degraded": "!",
    "starting": "=",
    "pending": "?",
    "stopped": ".",
}
"""Says by a letter what the colour says."""
MAX_NODES, MAX_ARROWS = 1000, 200
"""A layout takes a second for this many arrows, and much longer for more."""
UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
_LINES = {
    LEFT | RIGHT: "─",
    LEFT: "─",
    RIGHT: "─",
    UP | DOWN: "│",
    UP: "│",
    DOWN: "│",
    DOWN | RIGHT: "┌",
    DOWN | LEFT: "┐",
    UP | RIGHT: "└",
    UP | LEFT: "┘",
    UP | DOWN | RIGHT: "├",
    UP | DOWN | LEFT: "┤",
    DOWN | LEFT | RIGHT: "┬",
    UP | LEFT | RIGHT: "┴",
    UP | DOWN | LEFT | RIGHT: "┼",
}


class _Paper:
    """Characters with styles at places; lines are kept as directions until the end."""

    def __init__(self, wide: int, tall: int) -> None:
        self.tall = tall
        self._chars: list[list[str]] = [[" "] * wide for _ in range(tall)]
        self._styles: list[list[str]] = [[""] * wide for _ in range(tall)]
        self._bits: dict[tuple[int, int], int] = {}

    def text(self, x: int, y: int, text: str, style: str) -> None:
        for char in text:
            wide = words.width(char)
            if not wide or not (0 <= y < self.tall and x + wide <= len(self._chars[y])):
                continue
            self._chars[y][x], self._styles[y][x] = char, style
            self._bits.pop((x, y), None)
            if wide == 2:
                self._chars[y][x + 1] = ""
            x += wide

    def line(self, a: tuple[int, int], b: tuple[int, int], style: str) -> None:
        (x1, y1), (x2, y2) = a, b
        if y1 == y2:
            for x in range(min(x1, x2), max(x1, x2) + 1):
                bits = (LEFT if x > min(x1, x2) else 0) | (RIGHT if x < max(x1, x2) else 0)
                self._bit(x, y1, bits, style)
        else:
            for y in range(min(y1, y2), max(y1, y2) + 1):
                bits = (UP if y > min(y1, y2) else 0) | (DOWN if y < max(y1, y2) else 0)
                self._bit(x1, y, bits, style)

    def _bit(self, x: int, y: int, bits: int, style: str) -> None:
        self._bits[x, y] = self._bits.get((x, y), 0) | bits
        self._styles[y][x] = style

    def lines(self, *, ascii_only: bool) -> list[list[Span]]:
        for (x, y), bits in self._bits.items():
            char = _LINES[bits] if bits else " "
            if ascii_only and bits:
                char = {"─": "-", "│": "|"}.get(char, "+")
            self._chars[y][x] = char
        return [_runs(c, s) for c, s in zip(self._chars, self._styles, strict=True)]


def _runs(chars: list[str], styles: list[str]) -> list[Span]:
    spans: list[Span] = []
    for char, style in zip(chars, styles, strict=True):
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + char, style)
        else:
            spans.append((char, style))
    while spans:
        text, style = spans.pop()
        if text := text.rstrip():
            return [*spans, (text, style)]
    return spans


def graph(found: Topology, glyphs: Glyphs, chosen: str | None = None) -> list[list[Span]]:
    """Return the drawing of a topology; the chosen node is highlighted."""
    if not found.nodes:
        return [[(" no nodes", "dim")]]
    if len(found.nodes) > MAX_NODES or len(found.arrows) > MAX_ARROWS:
        size = f"{len(found.nodes)} nodes with {len(found.arrows)} arrows"
        return [[(f" {size} are too many to draw (o draws the neighbours of one)", "warn")]]
    places = layout(*found.shape)
    loops = {each.source: each for each in found.arrows if each.source == each.target}
    paper = _Paper(places.wide + 2, places.tall)
    for arrow, route in zip(found.arrows, places.routes, strict=True):
        if route is not None:
            _draw_arrow(paper, arrow, route, glyphs)
    for node, box in places.boxes.items():
        status = found.nodes[node]
        style = _STYLES.get(status, "key" if node == chosen else "")
        upper, right, lower, last = glyphs.corners
        inner = box.wide - 2
        paper.text(box.x, box.y, upper + glyphs.horizontal * inner + right, style)
        for y in range(box.y + 1, box.y + box.tall - 1):
            edge = glyphs.vertical
            paper.text(box.x, y, edge + " " * inner + edge, style)
        paper.text(box.x, box.y + box.tall - 1, lower + glyphs.horizontal * inner + last, style)
        letter = _LETTERS.get(status, " ") + (">" if node == chosen else " " * (status in _LETTERS))
        name = fit(clean(node), min(MAX_NAME, inner - 3), ascii_only=glyphs.ascii)
        paper.text(box.x + 1, box.y + box.tall // 2, letter + name, style or "title")
        if node in loops:
            text, shade = label(loops[node])
            paper.text(box.x + 1, box.y, fit(f"@{text}", inner, ascii_only=glyphs.ascii), shade)
    return paper.lines(ascii_only=glyphs.ascii)


def _draw_arrow(paper: _Paper, arrow: Arrow, route: Route, glyphs: Glyphs) -> None:
    text, style = label(arrow)
    for a, b in zip(route.corners, route.corners[1:], strict=False):
        paper.line(a, b, style or "rule")
    x, y = route.label
    paper.text(x + (LABEL - len(text)) // 2, y, text, style or "dim")
    if route.backward:
        x, y = route.corners[0]
        paper.text(x, y, glyphs.left, style or "rule")
    else:
        x, y = route.corners[-1]
        paper.text(x, y, glyphs.right, style or "rule")


def label(arrow: Arrow) -> tuple[str, str]:
    """Return the label of an arrow, cut to the room for it, and its style."""
    if arrow.broken:
        return "XX broken", "fail"
    if arrow.drops:
        return f"!drop {words.rate(arrow.drops)}/s"[:LABEL], "warn"
    several = f" x{len(arrow.edges)}" if len(arrow.edges) > 1 else ""
    return f"{words.rate(arrow.rate)}/s{several}"[:LABEL], ""
