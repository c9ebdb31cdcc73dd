"""A graph as boxes and arrows with rates and drops, or as one line or cell for each node."""

from collections.abc import Mapping
from typing import NamedTuple

from dorafleet.console.model.topology import Arrow, Topology, flow_order
from dorafleet.console.view import words
from dorafleet.console.view.glyphs import Glyphs
from dorafleet.console.view.graphlayout import LABEL, MAX_NAME, Box, Route, layout
from dorafleet.console.view.rows import Span, merged
from dorafleet.console.view.words import clean, fit

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
SHORTER_NAMES = (16, 10)
"""Columns of names in a drawing that would be too wide."""
MAX_CUT = 60
"""Arrows up to which another layout with shorter names is tried."""
CELL = 6
"""Columns of a cell of the overview beside the name: two marks, and some room."""
MIN_TARGETS = 20
"""Columns in which targets are worth showing if not all of them fit."""
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
    spans = merged(zip(chars, styles, strict=True))
    while spans:
        text, style = spans.pop()
        if text := text.rstrip():
            return [*spans, (text, style)]
    return spans


class Drawing(NamedTuple):
    """Lines, and where each node is in them."""

    lines: list[list[Span]]
    places: Mapping[str, Box]


def graph(drawn: Topology, glyphs: Glyphs, chosen: str | None = None, columns: int = 0) -> Drawing:
    """Return the drawing of a topology; the chosen node is highlighted.

    If `columns` are too few for whole names, these are cut.
    """
    if not drawn.nodes:
        return Drawing([[(" no nodes", "dim")]], {})
    if len(drawn.nodes) > MAX_NODES or len(drawn.arrows) > MAX_ARROWS:
        size = f"{len(drawn.nodes)} nodes with {len(drawn.arrows)} arrows"
        return Drawing([[(f" {size} are too many to draw (o draws fewer)", "warn")]], {})
    places = layout(*drawn.shape)
    if columns and len(drawn.arrows) <= MAX_CUT:
        for longest in SHORTER_NAMES:
            if places.wide > columns:
                places = layout(*drawn.shape, longest)
    loops = {each.source: each for each in drawn.arrows if each.source == each.target}
    paper = _Paper(places.wide + 2, places.tall)
    for arrow, route in zip(drawn.arrows, places.routes, strict=True):
        if route is not None:
            _draw_arrow(paper, arrow, route, glyphs)
    for node, box in places.boxes.items():
        status = drawn.nodes[node]
        style = _STYLES.get(status, "key" if node == chosen else "")
        upper, right, lower, last = glyphs.corners
        inner = box.wide - 2
        paper.text(box.x, box.y, upper + glyphs.horizontal * inner + right, style)
        for y in range(box.y + 1, box.y + box.tall - 1):
            edge = glyphs.vertical
            paper.text(box.x, y, edge + " " * inner + edge, style)
        paper.text(box.x, box.y + box.tall - 1, lower + glyphs.horizontal * inner + last, style)
        letter = _LETTERS.get(status, " ") + (">" if node == chosen else " " * (status in _LETTERS))
        name = fit(clean(node), inner - 3, ascii_only=glyphs.ascii)
        paper.text(box.x + 1, box.y + box.tall // 2, letter + name, style or "title")
        if node in loops:
            text, shade = label(loops[node])
            paper.text(box.x + 1, box.y, fit(f"@{text}", inner, ascii_only=glyphs.ascii), shade)
    return Drawing(paper.lines(ascii_only=glyphs.ascii), places.boxes)


def overview(
    drawn: Topology, glyphs: Glyphs, chosen: str | None, columns: int, rows: int
) -> Drawing:
    """Return all nodes in the order in which messages pass them, so that they fit if possible.

    With enough rows a node has a line with those that it sends to; otherwise there are several
    columns of nodes. The chosen node is in brackets, `<` stands before its sources, `>` before
    those that it sends to.
    """
    order = list(flow_order(*drawn.shape))
    if not order:
        return Drawing([[(" no nodes", "dim")]], {})
    longest = min(MAX_NAME, max(words.width(clean(node)) for node in order))
    across = max(1, min(-(-len(order) // max(1, rows)), columns // (longest + CELL)))
    wide = columns // across
    down = -(-len(order) // across)
    before, after = (drawn.sources(chosen), drawn.targets(chosen)) if chosen else ([], [])
    trouble, targets = _troubles(drawn), _targets(drawn)
    lines: list[list[Span]] = [[] for _ in range(down)]
    places = {}
    for at, node in enumerate(order):
        x, y = at // down * wide, at % down
        places[node] = Box(x, y, wide, 1)
        status = drawn.nodes[node]
        note, shade = trouble.get(node, ("", ""))
        style = _STYLES.get(status, shade)
        mark = "<" if node in before else ">" if node in after else " "
        mark, end = ("[", "]") if node == chosen else (mark, " ")
        name = fit(clean(node), longest, ascii_only=glyphs.ascii)
        look = "found" if node == chosen else style or ("key" if mark != " " else "")
        spans = [(f"{mark}{_LETTERS.get(status, ' ')}{name}{end}", look)]
        left = wide - longest - 3
        if note:
            marks = (note, note[:2].strip("d"), note[:1])
            text = " " + next((each for each in marks if len(each) + 1 < left), note[:1])
        else:
            to = ", ".join(targets.get(node, ()))
            text = f" {glyphs.right} {to}" if to else ""
            # The beginning of a name says less than nothing.
            text = text if words.width(text) < left or left > MIN_TARGETS else ""
            shade = "dim"
        spans.append((fit(text, left - 1, ascii_only=glyphs.ascii) + " ", shade))
        lines[y] += spans
    return Drawing(lines, places)


def _targets(drawn: Topology) -> dict[str, list[str]]:
    """Return the names of the nodes that each node sends to."""
    targets: dict[str, list[str]] = {}
    for arrow in drawn.arrows:
        targets.setdefault(arrow.source, []).append(clean(arrow.target))
    return targets


def _troubles(drawn: Topology) -> dict[str, tuple[str, str]]:
    """Return what is wrong with the inputs of each node that has a problem there."""
    troubles: dict[str, tuple[str, str]] = {}
    for arrow in drawn.arrows:
        if arrow.broken:
            troubles[arrow.target] = label(arrow)
        elif arrow.drops:
            troubles.setdefault(arrow.target, label(arrow))
    return troubles


def _draw_arrow(paper: _Paper, arrow: Arrow, route: Route, glyphs: Glyphs) -> None:
    text, style = label(arrow)
    for a, b in zip(route.corners, route.corners[1:], strict=False):
        paper.line(a, b, style or "dim")
    x, y = route.label
    paper.text(x + (LABEL - len(text)) // 2, y, text, style)
    if route.backward:
        x, y = route.corners[0]
        paper.text(x, y, glyphs.left, style or "dim")
    else:
        x, y = route.corners[-1]
        paper.text(x, y, glyphs.right, style or "dim")


def label(arrow: Arrow) -> tuple[str, str]:
    """Return the label of an arrow, cut to the room for it, and its style."""
    if arrow.broken:
        return "XX broken", "fail"
    if arrow.drops:
        return f"!drop {words.rate(arrow.drops)}/s"[:LABEL], "warn"
    several = f" x{len(arrow.edges)}" if len(arrow.edges) > 1 else ""
    return f"{words.rate(arrow.rate)}/s{several}"[:LABEL], ""
