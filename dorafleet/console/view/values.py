"""Messages of a topic: as text, as numbers for curves, and as a picture."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.control.arrayvalues import to_python_within
from dorafleet.console.view.words import clean, milliseconds

if TYPE_CHECKING:
    import pyarrow as pa

    from dorad.control.messages import TopicHeader
    from dorafleet.console.view.rows import Span

MAX_CURVES = 4
MAX_TEXT = 400
MAX_SHOWN = 16
"""Elements of an array that are shown as text."""
MAX_SIZE = 1 << 20
"""Bytes that these may take as Python objects; larger ones are not shown."""


_SHOWN_ELSEWHERE = ("timestamp", "preview", "width", "height", "encoding")


class Message(NamedTuple):
    """One message, reduced to what screens show."""

    at: float
    number: int
    """Counts the messages that have come, over all subscriptions of a screen."""
    text: str
    extra: str
    """Its other metadata, of which there may be megabytes; cut."""
    was: str
    """What it was before it was reduced; empty if it was not."""
    dropped: int
    """Messages before it that were not sent."""
    numbers: tuple[float, ...]
    """The first numbers in it."""
    image: tuple[bytes, int, int] | None
    """Pixels with three bytes each, width, height."""


class Gap(NamedTuple):
    """A time without a subscription: what was sent then is not known."""

    seconds: float


def read(header: TopicHeader, array: pa.Array | None, number: int) -> Message:
    """Return a message for screens."""
    metadata = header.metadata
    image = _image(array, metadata)
    extra = {key: value for key, value in metadata.items() if key not in _SHOWN_ELSEWHERE}
    was = _cut(str(metadata.get("preview") or ""))
    return Message(
        at=time.time(),
        number=number,
        text=_text(array, was, image),
        extra=_cut(str(extra)) if extra else "",
        was=was,
        dropped=header.dropped,
        numbers=() if image is not None else _numbers(array),
        image=image,
    )


def _image(array: pa.Array | None, metadata: dict[str, Any]) -> tuple[bytes, int, int] | None:
    width, height = metadata.get("width"), metadata.get("height")
    if array is None or metadata.get("encoding") != "rgb8" or str(array.type) != "uint8":
        return None
    if not (isinstance(width, int) and isinstance(height, int)) or width <= 0 or height <= 0:
        return None
    if len(array) != width * height * 3 or array.null_count:
        return None
    return bytes(array.buffers()[1])[array.offset : array.offset + len(array)], width, height


def _numbers(array: pa.Array | None) -> tuple[float, ...]:
    import pyarrow as pa

    if array is None:
        return ()
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return ()
    values = array.slice(0, MAX_CURVES).to_pylist()
    return tuple(float(value) for value in values if value is not None)


def _text(array: pa.Array | None, was: str, image: tuple[bytes, int, int] | None) -> str:
    if image is not None:
        return f"image {was or f'{image[1]}x{image[2]} rgb8'}"
    if array is None:
        return "no data"
    values = to_python_within(array.slice(0, MAX_SHOWN), MAX_SIZE)
    text = "…" if values is None else ", ".join(map(_plain, values))[:MAX_TEXT]
    more = ", …" if len(array) > MAX_SHOWN else ""
    whole = f"  ({was})" if was else ""
    return f"{_cut(str(array.type))}[{len(array)}] {text}{more}{whole}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _cut(repr(value) if isinstance(value, str | bytes) else str(value))


def _cut(text: str) -> str:
    return text[:MAX_TEXT]


def line(message: Message | Gap) -> list[Span]:
    """Return the line of a message, or of a time without any."""
    if isinstance(message, Gap):
        return [(f" {milliseconds(message.seconds)} not read", "dim")]
    at = time.localtime(message.at)
    clock = f"{time.strftime('%H:%M:%S', at)}.{int(message.at % 1 * 1000):03}"
    spans: list[Span] = [
        (f" {clock} ", "dim"),
        (f"#{message.number} ", "key"),
        (clean(message.text), ""),
    ]
    if message.extra:
        spans.append((f"  {clean(message.extra)}", "dim"))
    return spans
