"""A picture in cells that terminals with kitty's graphics fill with its pixels.

The program sends the picture under a number. Cells with a placeholder character then show their
part of it: the colour of the text is the number, two marks above the character are row and column.
See https://sw.kovidgoyal.net/kitty/graphics-protocol/#unicode-placeholders.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING

from dorad.control.pictures import resized

if TYPE_CHECKING:
    from dorad.control.pictures import Picture

PLACEHOLDER = "\U0010eeee"
USUAL_CELL = (10, 20)
"""Width and height of a cell in pixels, if the terminal does not tell."""
CHUNK = 4096
"""Characters of base64 in one sequence."""
PLACEMENT = 1
"""One placement, which the next replaces: a terminal might keep all that have no number."""

_RANGES = """
305 30d-30e 310 312 33d-33f 346 34a-34c 350-352 357 35b 363-36f 483-487 592-595 597-599
59c-5a1 5a8-5a9 5ab-5ac 5af 5c4 610-617 657-65b 65d-65e 6d6-6dc 6df-6e2 6e4 6e7-6e8 6eb-6ec
730 732-733 735-736 73a 73d 73f-741 743 745 747 749-74a 7eb-7f1 7f3 816-819 81b-823 825-827
829-82d 951 953-954 f82-f83 f86-f87 135d-135f 17dd 193a 1a17 1a75-1a7c 1b6b 1b6d-1b73
1cd0-1cd2 1cda-1cdb 1ce0 1dc0-1dc1 1dc3-1dc9 1dcb-1dcc 1dd1-1de6 1dfe 20d0-20d1 20d4-20d7
20db-20dc 20e1 20e7 20e9 20f0 2cef-2cf1 2de0-2dff a66f a67c-a67d a6f0-a6f1 a8e0-a8e5
"""
"""The first 256 marks of rowcolumn-diacritics.txt, which is part of the protocol."""


def _marks() -> tuple[str, ...]:
    ends = (each.partition("-") for each in _RANGES.split())
    ranges = (range(int(first, 16), int(last or first, 16) + 1) for first, _, last in ends)
    return tuple(chr(code) for each in ranges for code in each)


MARKS = _marks()
"""The mark of each row and column; a picture cannot have more of them."""


@lru_cache(4)
def cells(columns: int, rows: int) -> tuple[str, ...]:
    """Return the lines of a picture of so many cells."""
    return tuple(
        "".join(f"{PLACEHOLDER}{row}{column}" for column in MARKS[:columns]) for row in MARKS[:rows]
    )


def fitting(
    size: tuple[int, int], space: tuple[int, int], cell: tuple[int, int]
) -> tuple[int, int]:
    """Return the columns and rows that a picture of `size` pixels takes if it fills the space.

    `space` are columns and rows, `cell` is the width and height of one in pixels.
    """
    wide, high = (min(each, len(MARKS)) for each in space)
    scale = min(wide * cell[0] / size[0], high * cell[1] / size[1])
    columns, rows = (round(size[at] * scale / cell[at]) for at in (0, 1))
    return min(wide, max(1, columns)), min(high, max(1, rows))


def transmission(picture: Picture, size: tuple[int, int], image: int, scale: float = 1.0) -> str:
    """Return what sends a picture, and shows it in `size` columns and rows.

    Its width and height are multiplied by `scale` before. The terminal does not answer.
    """
    data = b64encode(_png(picture, scale)).decode()
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    keys = [f"a=t,f=100,i={image},q=2,"] + [""] * (len(parts) - 1)
    more = [1] * (len(parts) - 1) + [0]
    sent = "".join(
        f"\x1b_G{key}m={follows};{part}\x1b\\"
        for key, follows, part in zip(keys, more, parts, strict=True)
    )
    # Not together with the data: kitty draws the cells again after a command with `U`, and that
    # would be the first part of the data, before the picture is complete.
    columns, rows = size
    return f"{sent}\x1b_Ga=p,U=1,i={image},p={PLACEMENT},c={columns},r={rows},q=2\x1b\\"


def deletion(image: int) -> str:
    """Return what deletes a picture."""
    return f"\x1b_Ga=d,d=I,i={image},q=2\x1b\\"


def _png(picture: Picture, scale: float) -> bytes:
    """Return a PNG of RGB. Each pixel is the difference to the one left of it, which is smaller.

    Pillow tries five such filters on each line, and takes three times as long for the same size.
    """
    import numpy as np

    pixels = np.frombuffer(picture.pixels, np.uint8).reshape(picture.height, picture.width, 3)
    if scale < 1.0:
        wanted = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
        pixels = resized(pixels, wanted)
    height, width = pixels.shape[:2]
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0], lines[:, 1:] = 1, pixels.reshape(height, -1)
    lines[:, 4:] -= pixels[:, :-1].reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
