"""Draws one frame with its faces, and below it the latencies of the whole run."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tally import Tally

Pixels = NDArray[np.uint8]

SCALE = 2
PANEL = 300
INK, FAINT, PAPER, RULE = (236, 239, 241), (138, 148, 156), (19, 23, 27), (44, 51, 57)
FACE, FRAME = (94, 240, 168), (98, 176, 255)
MS_LOW, MS_HIGH = 0.1, 1000.0


@dataclass(frozen=True)
class Moment:
    """A frame with its faces and their latencies."""

    frame: int
    image: Pixels
    faces: list[dict[str, int]]
    """x, y, width and height in pixels."""
    frame_ms: float
    """Latency of the frame itself, from capture to sink."""
    faces_ms: float
    """The same for its faces."""


def draw(moment: Moment, frames: Tally, detections: Tally) -> Image.Image:
    """Return the picture, twice the size of the frame so that its text is crisp."""
    photo = Image.fromarray(moment.image)
    photo = photo.resize((photo.width * SCALE, photo.height * SCALE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (photo.width, photo.height + PANEL), PAPER)
    canvas.paste(photo)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for face in moment.faces:
        _mark(pen, face)
    text = (
        f"frame {moment.frame}: at the sink {moment.frame_ms:.2f} ms after its capture, "
        f"its faces {moment.faces_ms:.1f} ms after it"
    )
    pen.text((36, photo.height + 24), text, INK, _font(26))
    _numbers(pen, photo.height + 86, frames, detections)
    plot = (624, photo.height + 92, photo.width - 36, canvas.height - 46)
    _plot(pen, plot, frames, detections)
    return canvas


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _mark(pen: ImageDraw.ImageDraw, face: dict[str, int]) -> None:
    """Put corner brackets around a face and its size above."""
    left, top = face["x"] * SCALE, face["y"] * SCALE
    right, bottom = left + face["width"] * SCALE, top + face["height"] * SCALE
    arm = (right - left) // 5
    pen.rectangle([left, top, right, bottom], outline=(*FACE, 110), width=2)
    for x, toward_x in ((left, arm), (right, -arm)):
        for y, toward_y in ((top, arm), (bottom, -arm)):
            pen.line([(x + toward_x, y), (x, y), (x, y + toward_y)], FACE, 6, joint="curve")
    _tab(pen, (left - 3, top - 50), f"face, {face['width']} px")


def _tab(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
    """Write text on a dark rounded ground."""
    font = _font(24)
    width = pen.textlength(text, font)
    pen.rounded_rectangle([at[0], at[1], at[0] + width + 28, at[1] + 40], 8, (*PAPER, 205))
    pen.text((at[0] + 14, at[1] + 20), text, FACE, font, anchor="lm")


def _numbers(pen: ImageDraw.ImageDraw, top: int, frames: Tally, detections: Tally) -> None:
    """Write the measured rates and latencies, one block a stream."""
    blocks = (("frames", FRAME, frames), ("detections", FACE, detections))
    for index, (name, colour, tally) in enumerate(blocks):
        y = top + 106 * index
        pen.ellipse([36, y + 8, 50, y + 22], colour)
        pen.text((62, y), name, INK, _font(26))
        pen.text(
            (500, y), f"{tally.count}  at  {tally.rate_hz:.1f} Hz", INK, _font(26), anchor="ra"
        )
        pen.text((62, y + 42), "p50, p99", FAINT, _font(22))
        pen.text(
            (500, y + 42),
            f"{tally.percentile_ms(50):.2f} ms,  {tally.percentile_ms(99):.2f} ms",
            FAINT,
            _font(22),
            anchor="ra",
        )


def _plot(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], frames: Tally, detections: Tally
) -> None:
    """Plot each message's latency (logarithmic) over the seconds of the run."""
    left, top, right, bottom = box
    began = frames.seconds[0]
    span = max(*frames.seconds[-1:], *detections.seconds[-1:], began + 1) - began

    def height(ms: float) -> float:
        share = math.log(min(max(ms, MS_LOW), MS_HIGH) / MS_LOW) / math.log(MS_HIGH / MS_LOW)
        return bottom - share * (bottom - top)

    for ms, label in ((0.1, "0.1 ms"), (1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1000, "1 s")):
        pen.line([left, height(ms), right, height(ms)], RULE, 2)
        pen.text((left - 14, height(ms)), label, FAINT, _font(20), anchor="rm")
    for second in range(0, math.floor(span) + 1, max(1, round(span / 10))):
        x = left + second / span * (right - left)
        pen.text((x, bottom + 12), f"{second} s", FAINT, _font(20), anchor="ma")
    for tally, colour, radius in ((frames, FRAME, 2.5), (detections, FACE, 3.5)):
        for at, ms in zip(tally.seconds, tally.latencies_ms, strict=True):
            x, y = left + (at - began) / span * (right - left), height(ms)
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], (*colour, 220))
