"""A dataflow as one self-contained HTML page: an inline SVG that needs no network."""

from __future__ import annotations

import unicodedata
from functools import cache
from html import escape
from importlib import resources
from itertools import pairwise
from string import Template
from typing import TYPE_CHECKING

from dorad.dataflow.columns import Size
from dorad.dataflow.frames import PADDING, TITLE_HEIGHT, frames
from dorad.dataflow.layout import LOOP_WIDTH, Edge, layout
from dorad.dataflow.picture import BoxKind, picture, summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.dataflow.frames import Frame
    from dorad.dataflow.layout import EdgePath, Layout, Point
    from dorad.dataflow.model import Dataflow
    from dorad.dataflow.picture import Box, Bundle, Picture, Wire

TITLE_SIZE = 14.0
"""Font size of a box's title, pixels."""
SMALL_SIZE = 12.0
"""Font size of subtitles and labels, pixels."""
ADVANCE = 0.61
"""Width of a monospace character relative to the font size: 0.60 in most fonts."""
LINE_HEIGHT = 17.0
MARGIN = 12.0
MAX_TEXT = 36
"""Maximum characters of a title, subtitle or label; the tooltip has the whole text."""
WAIT_MARK = "‖ "

LEGEND = {
    "node": "node",
    "dynamic": "dynamic node",
    "operators": "operators",
    "timer": "timer",
    "logs": "log lines",
    "back": "feedback",
}


def page(dataflow: Dataflow) -> str:
    """Return the page: boxes for nodes, timers and log streams, arrows for inputs.

    Hovering, focusing or clicking a box highlights its connections.
    """
    drawing = picture(dataflow)
    placed = layout(
        {box.key: _box_size(box) for box in drawing.boxes},
        [Edge(b.source, b.target, _label_size(b)) for b in drawing.bundles],
    )
    return _template().substitute(
        title=escape(dataflow.path.name),
        summary=escape(summary(dataflow)),
        legend=_legend(drawing, placed),
        drawing=_svg(drawing, placed),
        title_size=f"{TITLE_SIZE:g}",
        small_size=f"{SMALL_SIZE:g}",
    )


@cache
def _template() -> Template:
    text = resources.files("dorad.dataflow").joinpath("page.html").read_text(encoding="utf-8")
    return Template(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _width(text: str, size: float) -> float:
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return columns * size * ADVANCE


def _box_size(box: Box) -> Size:
    if box.kind is BoxKind.TIMER:
        return Size(_width(_cut(box.title), SMALL_SIZE) + 32, 30)
    width = max(_width(_cut(box.title), TITLE_SIZE), _width(_cut(box.subtitle), SMALL_SIZE))
    return Size(max(width + 36, 96), 52 if box.subtitle else 40)


def _labels(bundle: Bundle) -> list[tuple[Wire, str]]:
    return [
        (wire, (WAIT_MARK if wire.backpressure else "") + _cut(text))
        for wire in bundle.wires
        if (text := f"{wire.label} [{wire.type}]" if wire.type else wire.label)
    ]


def _label_size(bundle: Bundle) -> Size:
    labels = _labels(bundle)
    if not labels:
        return Size(0.0, 0.0)
    return Size(
        max(_width(text, SMALL_SIZE) for _, text in labels) + 10, len(labels) * LINE_HEIGHT + 2
    )


def _legend(drawing: Picture, placed: Layout) -> str:
    present: set[str] = {box.kind for box in drawing.boxes}
    if any(route.backward for route in placed.routes):
        present.add("back")
    items = [f'<li><i class="{c}"></i>{text}</li>' for c, text in LEGEND.items() if c in present]
    if any(wire.backpressure for bundle in drawing.bundles for wire in bundle.wires):
        items.append(f'<li><i class="wait">{WAIT_MARK.strip()}</i>backpressure</li>')
    return "".join(items)


def _svg(drawing: Picture, placed: Layout) -> str:
    kinds = {box.key: box.kind for box in drawing.boxes}
    sizes = {box.key: _box_size(box) for box in drawing.boxes}
    around = frames(drawing.groups, placed.centres, sizes)
    left = min([0.0, *(frame.left for frame in around)]) - MARGIN
    top = min([0.0, *(frame.top for frame in around)]) - MARGIN
    width = max([placed.width, *(frame.right for frame in around)]) + MARGIN - left
    height = max([placed.height, *(frame.bottom for frame in around)]) + MARGIN - top
    parts = [
        (
            f'<svg width="{width:.0f}" height="{height:.0f}" role="group" aria-label="dataflow" '
            f'viewBox="{left:g} {top:g} {width:.1f} {height:.1f}">'
        ),
        "<defs>",
        *(_marker(name) for name in ("tip", "tip-timer", "tip-back", "tip-hot")),
        "</defs>",
        *(_frame(frame) for frame in around),
        *(
            _edge(bundle, route, kinds[bundle.source])
            for bundle, route in zip(drawing.bundles, placed.routes, strict=True)
        ),
        *(_box(box, placed.centres[box.key]) for box in drawing.boxes),
        "</svg>",
    ]
    return "\n".join(parts)


def _marker(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" orient="auto" '
        'markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="9">'
        '<path d="M0 1 L9.5 5 L0 9 z"/></marker>'
    )


def _edge(bundle: Bundle, route: EdgePath, source: BoxKind) -> str:
    classes = ["edge"]
    if route.backward:
        classes.append("back")
    elif source is BoxKind.TIMER:
        classes.append("timer")
    path = _loop_path(route.points) if route.loop else _path(route.points)
    tooltip = "\n\n".join(wire.tooltip for wire in bundle.wires)
    return (
        f'<g class="{" ".join(classes)}" data-source="{escape(bundle.source)}" '
        f'data-target="{escape(bundle.target)}"><title>{escape(tooltip)}</title>'
        f'<path class="reach" d="{path}"/><path class="line" d="{path}"/>'
        f"{''.join(_label(bundle, route))}</g>"
    )


def _label(bundle: Bundle, route: EdgePath) -> Iterable[str]:
    labels = _labels(bundle)
    if not labels:
        return
    size, (x, y) = _label_size(bundle), route.label
    yield _rect("plate", x, y, Size(size.width, size.height), 4)
    for index, (wire, text) in enumerate(labels):
        line = y + (index - (len(labels) - 1) / 2) * LINE_HEIGHT
        mark = ' class="wait"' if wire.backpressure else ""
        yield (
            f'<text x="{x:.1f}" y="{line:.1f}"{mark}>{escape(text)}'
            f"<title>{escape(wire.tooltip)}</title></text>"
        )


def _path(points: tuple[Point, ...]) -> str:
    """Draw a smooth line that leaves and enters every point vertically."""
    start = points[0]
    parts = [f"M{start.x:.1f} {start.y:.1f}"]
    for a, b in pairwise(points):
        if a == b:
            continue
        if abs(a.x - b.x) < 0.5:
            parts.append(f"L{b.x:.1f} {b.y:.1f}")
            continue
        middle = (a.y + b.y) / 2
        parts.append(f"C{a.x:.1f} {middle:.1f} {b.x:.1f} {middle:.1f} {b.x:.1f} {b.y:.1f}")
    return " ".join(parts)


def _loop_path(points: tuple[Point, ...]) -> str:
    """Draw a loop that leaves the right side of a box and comes back to it."""
    a, b = points
    out = a.x + LOOP_WIDTH
    return (
        f"M{a.x:.1f} {a.y:.1f} C{out:.1f} {a.y + 8:.1f} {out:.1f} {b.y - 8:.1f} {b.x:.1f} {b.y:.1f}"
    )


def _box(box: Box, centre: Point) -> str:
    size = _box_size(box)
    x, y = centre
    round_ = size.height / 2 if box.kind is BoxKind.TIMER else 9
    parts = [_rect("outer", x, y, size, round_)]
    if box.kind is BoxKind.OPERATORS:
        parts.append(_rect("inner", x, y, Size(size.width - 8, size.height - 8), 6))
    shift = 9.0 if box.subtitle and box.kind is not BoxKind.TIMER else 0.0
    parts.append(
        f'<text class="title" x="{x:.1f}" y="{y - shift:.1f}">{escape(_cut(box.title))}</text>'
    )
    if shift:
        text = escape(_cut(box.subtitle))
        parts.append(f'<text class="subtitle" x="{x:.1f}" y="{y + shift + 1:.1f}">{text}</text>')
    return (
        f'<g class="box {box.kind}" data-box="{escape(box.key)}" tabindex="0" '
        f'aria-label="{escape(box.title)}"><title>{escape(box.tooltip)}</title>'
        f"{''.join(parts)}</g>"
    )


def _frame(frame: Frame) -> str:
    width, height = frame.right - frame.left, frame.bottom - frame.top
    x, y = frame.left + PADDING, frame.top + PADDING / 2 + TITLE_HEIGHT / 2
    return (
        f'<g class="frame"><title>{escape(frame.group.tooltip)}</title>'
        f'<rect x="{frame.left:.1f}" y="{frame.top:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="12"/>'
        f'<text x="{x:.1f}" y="{y:.1f}">{escape(_cut(frame.group.title))}</text></g>'
    )


def _rect(kind: str, x: float, y: float, size: Size, radius: float) -> str:
    return (
        f'<rect class="{kind}" x="{x - size.width / 2:.1f}" y="{y - size.height / 2:.1f}" '
        f'width="{size.width:.1f}" height="{size.height:.1f}" rx="{radius:g}"/>'
    )
