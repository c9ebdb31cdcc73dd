"""A picture in half blocks: each character is two pixels, one above the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.control.pictures import resized
from dorafleet.console.model.detail import LEVELS
from dorafleet.console.view.rows import merged

if TYPE_CHECKING:
    import numpy as np

    from dorad.control.pictures import Picture
    from dorafleet.console.view.rows import Span

SHADES = " .:-=+*#%@"
"""From dark to bright, without colours."""
FULL = LEVELS[0]
"""Steps of each colour."""


def picture(
    shown: Picture,
    columns: int,
    rows: int,
    *,
    levels: int = FULL,
    colour: bool = True,
    ascii_only: bool = False,
) -> list[list[Span]]:
    """Return the lines of a picture that fits, not enlarged, with `levels` of each colour."""
    import numpy as np

    pixels = np.frombuffer(shown.pixels, np.uint8).reshape(shown.height, shown.width, 3)
    pixels = resized(pixels, (columns, rows * 2))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    if not colour or ascii_only:
        light = pixels.reshape(len(pixels) // 2, 2, -1, 3).mean(axis=(1, 3))
        shades = (light * (len(SHADES) - 1) / 255).astype(int)
        return [[("".join(SHADES[each] for each in row), "")] for row in shades]
    if levels < FULL:
        pixels = (pixels // (FULL // levels) * (255 // (levels - 1))).astype(np.uint8)
    upper, lower = _colours(pixels[::2]), _colours(pixels[1::2])
    return [
        merged(("▀", f"#{above:06x} on #{below:06x}") for above, below in zip(*pair, strict=True))
        for pair in zip(upper, lower, strict=True)
    ]


def _colours(pixels: np.ndarray[Any, Any]) -> list[list[int]]:
    """Return each pixel as one number, red in the upper bits."""
    import numpy as np

    wide = pixels.astype(np.uint32)
    numbers: list[list[int]] = (wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]).tolist()
    return numbers
