"""A dataflow as one self-contained HTML page: an inline SVG that needs no network."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from dataclasses import asdict
from functools import cache
from html import escape
from importlib import resources
from itertools import pairwise
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.dataflow.columns import Size
from dorad.dataflow.layout import LOOP_WIDTH, Edge, EdgePath, Layout, Point, layout
from dorad.dataflow.picture import Box, BoxKind, Bundle, Group, Picture, Wire, picture, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dorad.dataflow.model import Dataflow

PADDING = 9.0
TITLE_HEIGHT = 15.0
"""Room for the title above the boxes, pixels."""


class Frame(NamedTuple):
    """The edges of a frame, pixels."""

    group: Group
    left: float
    top: float
    right: float
    bottom: float


def frames(
    groups: tuple[Group, ...], centres: Mapping[str, Point], sizes: Mapping[str, Size]
) -> list[Frame]:
    """Return the frames that touch no other box, outer ones first.

    Boxes are placed by their connections, not by module. A module whose boxes are mixed with others
    gets no frame.
    """
    return [frame for group in groups for frame in _around(group, centres, sizes)]


def _around(
    group: Group, centres: Mapping[str, Point], sizes: Mapping[str, Size]
) -> Iterator[Frame]:
    inner = frames(group.groups, centres, sizes)
    members = set(group.all_boxes)
    if not members:
        return
    edges = [_edges(centres[key], sizes[key]) for key in members]
    edges += [(frame.left, frame.top, frame.right, frame.bottom) for frame in inner]
    frame = Frame(
        group,
        min(edge[0] for edge in edges) - PADDING,
        min(edge[1] for edge in edges) - PADDING - TITLE_HEIGHT,
        max(edge[2] for edge in edges) + PADDING,
        max(edge[3] for edge in edges) + PADDING,
    )
    others = (_edges(centres[key], sizes[key]) for key in centres if key not in members)
    if not any(_overlap(frame, other) for other in others):
        yield frame
    yield from inner


def _edges(centre: Point, size: Size) -> tuple[float, float, float, float]:
    x, y = size.width / 2, size.height / 2
    return centre.x - x, centre.y - y, centre.x + x, centre.y + y


def _overlap(frame: Frame, box: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = box
    return left < frame.right and frame.left < right and top < frame.bottom and frame.top < bottom


TITLE_SIZE = 14.0
"""Font size of a box's title, pixels."""
SMALL_SIZE = 12.0
"""Font size of subtitles and labels, pixels."""
ADVANCE = 0.61
"""Width of a monospace character relative to the font size: 0.60 in most fonts."""
LINE_HEIGHT = 17.0
FIGURES_SIZE = 11.0
FIGURES = 22
"""Characters of the figures of an edge in a live graph."""
STATUS = 20
"""Characters of the status of a node in a live graph."""
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


class Document(NamedTuple):
    """A page, and the policy that lets it run its own scripts and nothing else."""

    text: str
    policy: str
    """A Content-Security-Policy without `connect-src`, so it forbids the network."""


def page(dataflow: Dataflow) -> str:
    """Return the page: boxes for nodes, timers and log streams, arrows for inputs.

    Hovering, focusing or clicking a box highlights its connections.
    """
    drawing = picture(dataflow)
    placed = _place(drawing, live=False)
    return _document(
        dataflow.path.name,
        ("graph.js",),
        summary=escape(summary(dataflow)),
        legend=_legend(drawing, placed),
        drawing=_svg(drawing, placed, live=False),
    ).text


def live_page() -> Document:
    """Return the page that gets `live_graph` and figures from the server that it came from."""
    return _document("dataflow", ("graph.js", "charts.js", "live.js"), summary="", legend="")


def live_graph(dataflow: Dataflow) -> dict[str, Any]:
    """Return what the live page needs: the picture, and its drawing with room for figures."""
    drawing = picture(dataflow)
    placed = _place(drawing, live=True)
    return {
        "name": dataflow.path.name,
        "summary": summary(dataflow),
        "legend": _legend(drawing, placed),
        "drawing": _svg(drawing, placed, live=True),
        **asdict(drawing),
    }


def _place(drawing: Picture, *, live: bool) -> Layout:
    return layout(
        {box.key: _box_size(box, live=live) for box in drawing.boxes},
        [Edge(b.source, b.target, _label_size(b, live=live)) for b in drawing.bundles],
    )


def _document(title: str, names: tuple[str, ...], **parts: str) -> Document:
    """Return a page with scripts. One without a drawing gets it, and its policy, from a server."""
    scripts = [_text(name) for name in names]
    style = _text("page.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    text = Template(_text("page.html")).substitute(
        {"drawing": '<svg id="graph"></svg>', **parts},
        policy=(
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
            if "drawing" in parts
            else ""
        ),
        title=escape(title),
        style=style,
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )
    return Document(text, policy)


@cache
def _text(name: str) -> str:
    return resources.files("dorad.dataflow").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _width(text: str, size: float) -> float:
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return columns * size * ADVANCE


def _box_size(box: Box, *, live: bool) -> Size:
    if box.kind is BoxKind.TIMER:
        return Size(_width(_cut(box.title), SMALL_SIZE) + 32, 30)
    width = max(_width(_cut(box.title), TITLE_SIZE), _width(_cut(box.subtitle), SMALL_SIZE))
    height = 52.0 if box.subtitle else 40.0
    if live and box.kind is not BoxKind.LOGS:
        width, height = max(width, STATUS * SMALL_SIZE * ADVANCE), height + LINE_HEIGHT
    return Size(max(width + 36, 96), height)


def _measured(wire: Wire) -> bool:
    """Return True if the wire has counters: timers and log lines have none."""
    return not wire.source.startswith("dora/")


def _labels(bundle: Bundle, *, live: bool) -> list[tuple[Wire, str]]:
    """Return the lines of a label; an empty one has room for the figures of its wire."""
    lines = []
    for wire in bundle.wires:
        if text := f"{wire.label} [{wire.type}]" if wire.type else wire.label:
            lines.append((wire, (WAIT_MARK if wire.backpressure else "") + _cut(text)))
        if live and _measured(wire):
            lines.append((wire, ""))
    return lines


def _label_size(bundle: Bundle, *, live: bool) -> Size:
    lines = _labels(bundle, live=live)
    if not lines:
        return Size(0.0, 0.0)
    widths = (
        _width(text, SMALL_SIZE) if text else FIGURES * FIGURES_SIZE * ADVANCE for _, text in lines
    )
    return Size(max(widths) + 10, len(lines) * LINE_HEIGHT + 2)


def _legend(drawing: Picture, placed: Layout) -> str:
    present: set[str] = {box.kind for box in drawing.boxes}
    if any(route.backward for route in placed.routes):
        present.add("back")
    items = [f'<li><i class="{c}"></i>{text}</li>' for c, text in LEGEND.items() if c in present]
    if any(wire.backpressure for bundle in drawing.bundles for wire in bundle.wires):
        items.append(f'<li><i class="wait">{WAIT_MARK.strip()}</i>backpressure</li>')
    return "".join(items)


def _svg(drawing: Picture, placed: Layout, *, live: bool) -> str:
    kinds = {box.key: box.kind for box in drawing.boxes}
    sizes = {box.key: _box_size(box, live=live) for box in drawing.boxes}
    around = frames(drawing.groups, placed.centres, sizes)
    left = min([0.0, *(frame.left for frame in around)]) - MARGIN
    top = min([0.0, *(frame.top for frame in around)]) - MARGIN
    width = max([placed.width, *(frame.right for frame in around)]) + MARGIN - left
    height = max([placed.height, *(frame.bottom for frame in around)]) + MARGIN - top
    parts = [
        (
            '<svg id="graph" role="group" aria-label="dataflow" '
            f'viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}">'
        ),
        "<defs>",
        *(_marker(name) for name in ("tip", "tip-timer", "tip-back", "tip-hot", "tip-bad")),
        "</defs>",
        *(_frame(frame) for frame in around),
        *(
            _edge(bundle, route, kinds[bundle.source], live=live)
            for bundle, route in zip(drawing.bundles, placed.routes, strict=True)
        ),
        *(_box(box, placed.centres[box.key], live=live) for box in drawing.boxes),
        "</svg>",
    ]
    return "\n".join(parts)


def _marker(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" orient="auto" '
        'markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="9">'
        '<path d="M0 1 L9.5 5 L0 9 z"/></marker>'
    )


def _edge(bundle: Bundle, route: EdgePath, source: BoxKind, *, live: bool) -> str:
    classes = ["edge"]
    if route.backward:
        classes.append("back")
    elif source is BoxKind.TIMER:
        classes.append("timer")
    path = _loop_path(route.points) if route.loop else _path(route.points)
    tooltip = "\n\n".join(wire.tooltip for wire in bundle.wires)
    names = f"{bundle.source} to {bundle.target}"
    focusable = live and any(map(_measured, bundle.wires))
    button = f' tabindex="0" role="button" aria-label="{escape(names)}"' if focusable else ""
    return (
        f'<g class="{" ".join(classes)}" data-source="{escape(bundle.source)}" '
        f'data-target="{escape(bundle.target)}"{button}><title>{escape(tooltip)}</title>'
        f'<path class="reach" d="{path}"/><path class="line" d="{path}"/>'
        f"{''.join(_label(bundle, route, live=live))}</g>"
    )


def _label(bundle: Bundle, route: EdgePath, *, live: bool) -> Iterable[str]:
    lines = _labels(bundle, live=live)
    if not lines:
        return
    size, (x, y) = _label_size(bundle, live=live), route.label
    yield _rect("plate", x, y, Size(size.width, size.height), 4)
    for index, (wire, text) in enumerate(lines):
        line = y + (index - (len(lines) - 1) / 2) * LINE_HEIGHT
        if not text:
            yield (
                f'<text class="figures" data-wire="{escape(wire.target)}" '
                f'x="{x:.1f}" y="{line:.1f}"></text>'
            )
            continue
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


def _box(box: Box, centre: Point, *, live: bool) -> str:
    size = _box_size(box, live=live)
    x, y = centre
    round_ = size.height / 2 if box.kind is BoxKind.TIMER else 9
    parts = [_rect("outer", x, y, size, round_)]
    if box.kind is BoxKind.OPERATORS:
        parts.append(_rect("inner", x, y, Size(size.width - 8, size.height - 8), 6))
    lines = [("title", _cut(box.title))]
    if box.subtitle and box.kind is not BoxKind.TIMER:
        lines.append(("subtitle", _cut(box.subtitle)))
    if live and box.kind not in (BoxKind.TIMER, BoxKind.LOGS):
        lines.append(("status", ""))
    for index, (name, text) in enumerate(lines):
        line = y + (index - (len(lines) - 1) / 2) * LINE_HEIGHT
        parts.append(f'<text class="{name}" x="{x:.1f}" y="{line:.1f}">{escape(text)}</text>')
    if live:
        parts.append(f'<text class="mark" x="{x:.1f}" y="{y:.1f}"></text>')
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
