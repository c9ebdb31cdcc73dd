"""Frames around the boxes of modules, where a drawing has room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.dataflow.columns import Size
    from dorad.dataflow.layout import Point
    from dorad.dataflow.picture import Group

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
