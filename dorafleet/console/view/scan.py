"""A scan of a lidar from above, in braille: ahead is up, the sensor is in the middle."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeGuard

from dorafleet.console.view.rows import Span, merged

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
LARGEST = 1e6
"""Metres; longer ranges are none."""
FAR = 0.98
"""The part of the ranges that the drawing has room for: one far echo would make the rest a dot."""


class Scan(NamedTuple):
    """Distances in metres, from one angle on in equal steps, in radians to the left."""

    ranges: Sequence[float]
    start: float
    step: float


def scan_of(value: Any, metadata: Mapping[str, Any]) -> Scan | None:
    """Return the scan of a message: `ranges`, `angle_min` and `angle_increment`, as ROS names them.

    In an array of distances the angles are in the metadata.
    """
    angles = value if isinstance(value, dict) else metadata
    ranges = value.get("ranges") if isinstance(value, dict) else value
    start, step = angles.get("angle_min"), angles.get("angle_increment")
    if not isinstance(ranges, list) or len(ranges) < 2:
        return None
    if not (_is_angle(start) and _is_angle(step)):
        return None
    if not all(each is None or isinstance(each, Real) for each in ranges):
        return None
    nothing = math.nan
    return Scan([nothing if each is None else float(each) for each in ranges], start, step)


def _is_angle(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and math.isfinite(value) and abs(float(value)) < 100


def lines(scan: Scan, columns: int, rows: int, *, ascii_only: bool = False) -> list[list[Span]]:
    """Return a drawing of a scan with its scale in the last line."""
    seen = [
        (distance, scan.start + at * scan.step)
        for at, distance in enumerate(scan.ranges)
        if 0 < distance < LARGEST
    ]
    down = rows - 1
    if not seen or columns < 4 or down < 2:
        return [[(f" none of {len(scan.ranges)} ranges has an echo", "dim")]]
    radius = sorted(distance for distance, _ in seen)[math.ceil((len(seen) - 1) * FAR)]
    # A character is two dots wide and four high: dots are about square.
    wide, tall = columns * 2, down * 4
    scale = (min(wide, tall) - 2) / 2 / radius
    bits: dict[tuple[int, int], int] = {}
    beyond = 0
    for distance, angle in seen:
        x = round(wide / 2 - math.sin(angle) * distance * scale)
        y = round(tall / 2 - math.cos(angle) * distance * scale)
        if 0 <= x < wide and 0 <= y < tall:
            place = (y // 4, x // 2)
            bits[place] = bits.get(place, 0) | _DOTS[x % 2][y % 4]
        else:
            beyond += 1
    middle = (round(tall / 2) // 4, round(wide / 2) // 2)
    drawn = []
    for row in range(down):
        cells = [
            ("+", "mark")
            if (row, column) == middle
            else (_char(bits.get((row, column), 0), ascii_only), "line1")
            for column in range(columns)
        ]
        drawn.append(merged(cells))
    note = f" {len(seen)} of {len(scan.ranges)} ranges, nearest {min(seen)[0]:.3g} m"
    note += f", edge of the drawing at {min(wide, tall) / 2 / scale:.3g} m, ahead is up"
    note += f", {beyond} outside" if beyond else ""
    return [*drawn, [(note, "dim")]]


def _char(bit: int, ascii_only: bool) -> str:
    if not bit:
        return " "
    return "*" if ascii_only else chr(0x2800 + bit)
