"""Messages of a topic: a line of text each, and all that is in the last one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.control.arrayvalues import to_python_within
from dorad.control.pictures import PictureError, small_picture
from dorafleet.console.view.fields import fields, is_table, text_of
from dorafleet.console.view.scan import scan_of
from dorafleet.console.view.words import clean, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from dorad.control.messages import TopicHeader
    from dorad.control.pictures import Picture
    from dorafleet.console.view.fields import Field
    from dorafleet.console.view.rows import Span
    from dorafleet.console.view.scan import Scan

MAX_CURVES = 4
MAX_TEXT = 400
MAX_VALUES = 4096
"""Elements of an array that are shown; robots send no more in a preview."""
MAX_SIZE = 1 << 20
"""Bytes that these may take as Python objects; larger ones are not shown."""
MAX_SHOWN = 16
"""Elements of an array that is too large, of which at least the first are shown."""


_SHOWN_ELSEWHERE = ("timestamp", "preview", "width", "height", "encoding")


class TopicMessage(NamedTuple):
    """One message as a line."""

    at: float
    number: int
    """Counts the messages that have come, over all subscriptions of a screen."""
    text: str
    extra: str
    """Its other metadata, of which there may be megabytes; cut."""


class Content(NamedTuple):
    """All that is in one message, and can be shown of it."""

    kind: str
    """Its type and number of elements; empty for a message without data."""
    was: str
    """What it was before it was reduced; empty if it was not."""
    dropped: int
    """Messages before it that were not sent."""
    value: Any
    """A struct as a dictionary, anything else as a list."""
    fields: list[Field]
    scan: Scan | None
    picture: Picture | None
    problem: str
    """Why its picture cannot be shown; empty if it can, or if it has none."""

    @property
    def numbers(self) -> dict[str, float]:
        """The fields that can be drawn as curves, by path."""
        return {each.path: each.number for each in self.fields if each.number is not None}

    @property
    def has_table(self) -> bool:
        """Whether it is a list of structs."""
        return is_table(self.value)


class Gap(NamedTuple):
    """A time without a subscription: what was sent then is not known."""

    seconds: float


def read(
    header: TopicHeader, array: pa.Array | None, number: int, size: tuple[int, int]
) -> tuple[TopicMessage, Content]:
    """Return a message for screens; its picture fits into `size` pixels."""
    metadata = header.metadata
    picture, problem = _picture(array, metadata, size)
    has_values = array is not None and picture is None and not problem
    value = _value(array) if has_values else None
    was = _cut(str(metadata.get("preview") or (picture.was if picture is not None else "")))
    text = "no data"
    if picture is not None or problem:
        text = f"picture {was or problem}"
    elif array is not None:
        text = "…" if value is None else text_of(value)
    extra = {key: value for key, value in metadata.items() if key not in _SHOWN_ELSEWHERE}
    message = TopicMessage(time.time(), number, text, _cut(str(extra)) if extra else "")
    return message, Content(
        kind="" if array is None else f"{_cut(str(array.type))}[{len(array)}]",
        was=was,
        dropped=header.dropped,
        value=value,
        fields=fields(value),
        scan=scan_of(value, metadata),
        picture=picture,
        problem=problem,
    )


def _picture(
    array: pa.Array | None, metadata: Mapping[str, Any], size: tuple[int, int]
) -> tuple[Picture | None, str]:
    """Return the picture of a message, or why there is none; empty if it says of none."""
    try:
        return small_picture(array, metadata, size), ""
    except PictureError as error:
        return None, _cut(str(error))


def _value(array: pa.Array) -> Any:
    """Return a single struct as a dictionary, anything else as a list; None if it is too large."""
    import pyarrow as pa

    values = to_python_within(array.slice(0, MAX_VALUES), MAX_SIZE)
    if values is None:
        values = to_python_within(array.slice(0, MAX_SHOWN), MAX_SIZE)
    single = pa.types.is_struct(array.type) and len(array) == 1
    return values[0] if single and values and values[0] is not None else values


def _cut(text: str) -> str:
    return text[:MAX_TEXT]


def line(message: TopicMessage | Gap) -> list[Span]:
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
