"""A wall with framed photographs on it, for a camera to pan over.

The photographs are those that scikit-image ships inside its wheel; nothing is downloaded.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from skimage import data

Pixels = NDArray[np.uint8]

WALL_HEIGHT = 528
SLOT_WIDTH = 620
"""Width of the wall for each photograph, in pixels."""

PHOTO_BOX = (500, 372)
MAT, FRAME = 18, 7
PAINT_TOP, PAINT_BOTTOM = (84, 92, 98), (58, 64, 70)


def photographs() -> list[tuple[str, Image.Image]]:
    """Return the pictures in the order they hang, each with its label."""
    astronaut = Image.fromarray(data.astronaut())
    return [
        ("Eileen Collins, astronaut", astronaut),
        ("Coffee", Image.fromarray(data.coffee())),
        ("Falcon 9", Image.fromarray(data.rocket())),
        ("Eileen Collins, close up", astronaut.crop((80, 0, 400, 238))),
        ("Chelsea, a cat", Image.fromarray(data.chelsea())),
        ("Hubble deep field", Image.fromarray(data.hubble_deep_field())),
    ]


def wall() -> Pixels:
    """Return the whole wall as (height, width, 3); its right end continues at its left end."""
    photos = photographs()
    image = _painted_wall(SLOT_WIDTH * len(photos))
    for slot, (label, photo) in enumerate(photos):
        _hang(image, photo, label, center_x=SLOT_WIDTH * slot + SLOT_WIDTH // 2)
    return np.asarray(image)


def _painted_wall(width: int) -> Image.Image:
    """Paint a wall that is lit from above."""
    down = np.linspace(0.0, 1.0, WALL_HEIGHT)[:, None]
    column = np.array(PAINT_TOP) * (1 - down) + np.array(PAINT_BOTTOM) * down
    return Image.fromarray(np.repeat(column[:, None, :], width, axis=1).astype(np.uint8))


def _hang(wall: Image.Image, photo: Image.Image, label: str, center_x: int) -> None:
    """Hang a photograph with mat, frame, shadow and label."""
    scale = min(PHOTO_BOX[0] / photo.width, PHOTO_BOX[1] / photo.height)
    photo = photo.resize(
        (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS
    )
    border = MAT + FRAME
    left = center_x - photo.width // 2
    top = (WALL_HEIGHT - 20 - photo.height) // 2
    outer = (left - border, top - border, left + photo.width + border, top + photo.height + border)

    shadow = Image.new("L", wall.size)
    ImageDraw.Draw(shadow).rectangle(
        [outer[0] + 4, outer[1] + 10, outer[2] + 4, outer[3] + 12], 150
    )
    wall.paste((12, 14, 16), mask=shadow.filter(ImageFilter.GaussianBlur(9)))

    draw = ImageDraw.Draw(wall)
    draw.rectangle(outer, (38, 30, 24))
    draw.rectangle(
        [outer[0] + FRAME, outer[1] + FRAME, outer[2] - FRAME, outer[3] - FRAME], (240, 237, 230)
    )
    wall.paste(photo, (left, top))
    draw.text(
        (center_x, outer[3] + 22), label, (206, 210, 212), ImageFont.load_default(15), anchor="mm"
    )
