"""A picture in half blocks: each character is two pixels, one above the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.console.view.rows import Span

SHADES = " .:-=+*#%@"
"""From dark to bright, without colours."""
LEVELS = 8
"""Steps of each colour: fewer give longer runs, and fewer bytes."""


def size_for(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """Return the size in pixels of a picture that fits into columns and rows, not enlarged."""
    scale = min(1.0, columns / width, rows * 2 / height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def picture(
    pixels: bytes | memoryview | Sequence[int],
    width: int,
    height: int,
    columns: int,
    rows: int,
    *,
    colour: bool = True,
    ascii_only: bool = False,
) -> list[list[Span]]:
    """Return the lines of an image with three bytes a pixel. Raises ValueError if bytes lack."""
    if width <= 0 or height <= 0 or len(pixels) < width * height * 3:
        raise ValueError(f"an image of {width}x{height} pixels with {len(pixels)} bytes")
    across, down = size_for(width, height, columns, rows)
    xs = [x * width // across * 3 for x in range(across)]

    def row_of(y: int) -> list[tuple[int, int, int]]:
        start = min(y, down - 1) * height // down * width * 3
        return [(pixels[start + x], pixels[start + x + 1], pixels[start + x + 2]) for x in xs]

    lines: list[list[Span]] = []
    for y in range(0, down, 2):
        upper, lower = row_of(y), row_of(y + 1)
        if colour and not ascii_only:
            lines.append(_blocks(upper, lower))
        else:
            lines.append([("".join(map(_shade, upper, lower)), "")])
    return lines


def _blocks(
    upper: Sequence[tuple[int, int, int]], lower: Sequence[tuple[int, int, int]]
) -> list[Span]:
    spans: list[Span] = []
    for above, below in zip(upper, lower, strict=True):
        style = f"{_hex(above)} on {_hex(below)}"
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + "▀", style)
        else:
            spans.append(("▀", style))
    return spans


def _hex(pixel: tuple[int, int, int]) -> str:
    step = 256 // LEVELS
    return "#" + "".join(f"{min(255, value // step * 255 // (LEVELS - 1)):02x}" for value in pixel)


def _shade(above: tuple[int, int, int], below: tuple[int, int, int]) -> str:
    light = sum(above) + sum(below)
    return SHADES[light * (len(SHADES) - 1) // (255 * 6)]
