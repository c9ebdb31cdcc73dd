"""Curves over time in braille: each character has two columns of four dots."""

from collections.abc import Iterator, Mapping, Sequence

from dorafleet.console.view.rows import Span, merged
from dorafleet.console.view.words import fit

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot, by column and row."""
STYLES = ("line1", "line2", "line3", "line4")
LARGEST = 1e300
"""Larger values are left out, as those that are not finite: their difference could be infinite."""
MARGIN = 10
"""Columns for the numbers at the left."""


def bounds(curves: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, float] | None:
    """Return the lowest and highest value, a little apart if they are equal; None without any."""
    values = [v for points in curves.values() for _, v in points if abs(v) <= LARGEST]
    if not values:
        return None
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 1.0
        return low - pad, high + pad
    return low, high


def plot(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    columns: int,
    rows: int,
    seconds: float,
    end: float | None = None,
    *,
    ascii_only: bool = False,
) -> list[list[Span]]:
    """Return a drawing of curves, whose points are (time, value), over the last `seconds`.

    They end at the time `end`, by default at the last point.
    Later curves are drawn over earlier ones. The last line names the curves.
    """
    limits = bounds(curves)
    across, down = columns - MARGIN - 1, rows - 1
    if limits is None or across < 4 or down < 2:
        return [[(" no numbers yet", "dim")]]
    low, high = limits
    newest = max(points[-1][0] for points in curves.values() if points)
    end = newest if end is None else max(end, newest)
    bits = [[0] * across for _ in range(down)]
    owner = [[0] * across for _ in range(down)]
    numbers: dict[tuple[int, int], str] = {}
    for number, points in enumerate(curves.values()):
        pixels = _pixels(points, end, seconds, low, high, across * 2, down * 4)
        for x, y in pixels:
            bits[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
            owner[y // 4][x // 2] = number
        if pixels and len(curves) > 1:
            # Colours alone do not tell curves apart. Where they meet, one moves to the left.
            column, row = pixels[-1][0] // 2, pixels[-1][1] // 4
            while (row, column) in numbers:
                column -= 1
            numbers[row, column] = str(number + 1)
            owner[row][column] = number
    lines = [
        [
            (_label(row, down, low, high), "dim"),
            *merged(_styled(_chars(row, bits[row], numbers, ascii_only), owner[row])),
        ]
        for row in range(down)
    ]
    legend: list[Span] = [(" " * MARGIN + f" last {seconds:.0f} s  ", "dim")]
    for number, (name, points) in enumerate(curves.items()):
        value = f" {points[-1][1]:.4g}" if points else ""
        mark = number + 1 if len(curves) > 1 else "*" if ascii_only else "●"
        legend.append((f"{mark} {name}{value}  ", STYLES[number % 4]))
    return [*lines, legend]


def _pixels(
    points: Sequence[tuple[float, float]],
    end: float,
    seconds: float,
    low: float,
    high: float,
    wide: int,
    tall: int,
) -> list[tuple[int, int]]:
    """Return the dots of a curve, with the gaps between successive points filled."""
    pixels: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for at, value in points:
        x = int((1 - (end - at) / seconds) * (wide - 1))
        if x < 0 or not abs(value) <= LARGEST:
            before = None
            continue
        y = int((high - value) / (high - low) * (tall - 1) + 0.5)
        if before is not None:
            pixels += _line(before, (x, y))
        pixels.append((x, y))
        before = (x, y)
    return pixels


def _line(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
    return [
        (round(a[0] + (b[0] - a[0]) * n / steps), round(a[1] + (b[1] - a[1]) * n / steps))
        for n in range(1, steps)
    ]


def _label(row: int, rows: int, low: float, high: float) -> str:
    if row in (0, rows - 1, rows // 2):
        value = high - (high - low) * row / (rows - 1)
        if abs(value) < (high - low) / 1000:
            value = 0.0  # more digits than the drawing has dots
        return fit(f"{value:.4g}", MARGIN, right=True) + " "
    return " " * (MARGIN + 1)


def _chars(
    row: int, bits: Sequence[int], numbers: Mapping[tuple[int, int], str], ascii_only: bool
) -> list[str]:
    """Return the characters of a line; `numbers` stand at the ends of curves."""
    chars = [" " if not bit else _ascii(bit) if ascii_only else chr(0x2800 + bit) for bit in bits]
    for at in range(len(chars)):
        chars[at] = numbers.get((row, at), chars[at])
    return chars


def _styled(chars: Sequence[str], owner: Sequence[int]) -> Iterator[Span]:
    for char, number in zip(chars, owner, strict=True):
        yield char, STYLES[number % 4] if char != " " else ""


def _ascii(bit: int) -> str:
    upper, lower = bit & 0x1B, bit & 0xE4
    return ":" if upper and lower else "'" if upper else "."
