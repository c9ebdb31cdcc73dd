"""A dataflow as a Mermaid flowchart, for READMEs and issues."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from dorad.dataflow.picture import Box, BoxKind, Bundle, Group, picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.dataflow.model import Dataflow

SHAPES = {
    BoxKind.NODE: ('["', '"]'),
    BoxKind.DYNAMIC: ('[/"', '"\\]'),
    BoxKind.OPERATORS: ('[["', '"]]'),
    BoxKind.TIMER: ('(["', '"])'),
    BoxKind.LOGS: ('>"', '"]'),
}

PLAIN = " -_./,"
"""Characters besides letters and digits without a meaning in Mermaid's quotes."""

CLASSES = """\
  classDef timer stroke:#b7791f
  classDef dynamic stroke-dasharray:5 4"""


def mermaid(dataflow: Dataflow) -> str:
    """Return a `flowchart TB`: a box for each node, timer and log stream, an arrow for each input.

    Modules are subgraphs. Boxes get neutral names (`n0`, `n1`, …), because an id could be Mermaid
    syntax.
    """
    drawing = picture(dataflow)
    names = {box.key: f"n{index}" for index, box in enumerate(drawing.boxes)}
    lines = ["flowchart TB"]
    shapes = {box.key: f"{names[box.key]}{_shape(box)}" for box in drawing.boxes}
    framed = {key for group in drawing.groups for key in group.all_boxes}
    lines += [f"  {shape}" for key, shape in shapes.items() if key not in framed]
    numbers = count()
    for group in drawing.groups:
        lines += _subgraph(group, shapes, numbers, "  ")
    for bundle in drawing.bundles:
        lines += _arrows(bundle, names)
    for kind in (BoxKind.TIMER, BoxKind.DYNAMIC):
        members = [names[box.key] for box in drawing.boxes if box.kind is kind]
        if members:
            lines.append(f"  class {','.join(members)} {kind}")
    return "\n".join([*lines, CLASSES]) + "\n"


def _subgraph(
    group: Group, shapes: Mapping[str, str], numbers: Iterator[int], margin: str
) -> Iterator[str]:
    yield f'{margin}subgraph m{next(numbers)}["{_text(group.title)}"]'
    for key in group.boxes:
        yield f"{margin}  {shapes[key]}"
    for inner in group.groups:
        yield from _subgraph(inner, shapes, numbers, f"{margin}  ")
    yield f"{margin}end"


def _shape(box: Box) -> str:
    opening, closing = SHAPES[box.kind]
    return f"{opening}{_text(box.title)}{closing}"


def _arrows(bundle: Bundle, names: dict[str, str]) -> list[str]:
    source, target = names[bundle.source], names[bundle.target]
    lines = []
    for wire in bundle.wires:
        label = f"{wire.label} [{wire.type}]" if wire.type else wire.label
        arrow = "==>" if wire.backpressure else "-->"
        lines.append(f"  {source} {arrow}" + (f'|"{_text(label)}"| ' if label else " ") + target)
    return lines


def _text(text: str) -> str:
    """Escape text for Mermaid, whose entities are `#` + decimal code + `;`."""
    return "".join(c if c.isalnum() or c in PLAIN or ord(c) > 127 else f"#{ord(c)};" for c in text)
