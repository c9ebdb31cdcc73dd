"""Make the messages of a subscription fewer and smaller, where they come from."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError
from dorad.control.pictures import DecoderMissingError, PictureError, small_picture

if TYPE_CHECKING:
    import pyarrow as pa

    from dorad.control.messages import TopicSubscribe

MAX_ELEMENTS = 4096
"""Elements of an array that is not an image, and of a list in it, in a preview."""
MAX_BYTES = 256 << 10
"""Bytes of a preview; a message that is still larger comes without its data."""
MAX_PIXELS = 4096
"""Maximum width and height of a preview."""

_log = logging.getLogger(__name__)


def encoded(params: TopicSubscribe) -> str:
    """Return how to reduce messages, for `Reducer.of`. Raises ControlError."""
    rate, preview = params.max_rate_hz, params.preview
    if rate is None and preview is None:
        return ""
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise ControlError("bad-request", "`max_rate_hz` must be more than 0")
    if preview is not None and not (
        0 < preview.width <= MAX_PIXELS and 0 < preview.height <= MAX_PIXELS
    ):
        raise ControlError(
            "bad-request", f"`width` and `height` of `preview` must be 1 to {MAX_PIXELS}"
        )
    size = None if preview is None else [preview.width, preview.height]
    return json.dumps({"rate": rate, "size": size})


class Reducer:
    """Chooses the messages to send, and makes them smaller."""

    def __init__(self, rate: float | None = None, size: tuple[int, int] | None = None) -> None:
        """Send at most `rate` messages a second of each topic; images fit into `size`."""
        self._pause = 0.0 if rate is None else 1.0 / rate
        self._size = size
        self._due: dict[str, float] = {}

    @classmethod
    def of(cls, text: str) -> Reducer:
        """Return the reducer that `encoded` describes."""
        if not text:
            return cls()
        given = json.loads(text)
        return cls(given["rate"], None if given["size"] is None else tuple(given["size"]))

    def is_due(self, topic: str, now: float) -> bool:
        """Return True if a message of a topic that comes at the time `now` is sent."""
        due = self._due.get(topic, now)
        if now < due:
            return False
        # From the time that was due, so that the rate is kept; but never in bursts.
        self._due[topic] = max(due + self._pause, now)
        return True

    def reduce(
        self, array: pa.Array | None, metadata: dict[str, Any]
    ) -> tuple[pa.Array | None, dict[str, Any]]:
        """Return a message with less data; its metadata say what it was in `preview`."""
        import numpy as np
        import pyarrow as pa

        if self._size is None or array is None:
            return array, metadata
        try:
            picture = small_picture(array, metadata, self._size)
        except DecoderMissingError as error:
            # The client may have what this machine has not; but a file cannot be cut.
            _log.debug("a picture is sent as it is: %s", error)
            return _without(array, metadata, str(error)) if _is_large(array) else (array, metadata)
        except PictureError as error:
            _log.debug("a picture is left out: %s", error)
            return _without(array, metadata, str(error))
        if picture is not None:
            return pa.array(np.frombuffer(picture.pixels, np.uint8)), metadata | {
                "width": picture.width,
                "height": picture.height,
                "encoding": "rgb8",
                "preview": picture.was,
            }
        if len(array) > MAX_ELEMENTS:
            metadata = metadata | {"preview": f"{MAX_ELEMENTS} of {len(array)} elements"}
            array = array.slice(0, MAX_ELEMENTS)
        if _is_large(array):
            array, cut = _with_short_lists(array)
            if cut:
                metadata = metadata | {"preview": f"{MAX_ELEMENTS} elements of {', '.join(cut)}"}
        return _without(array, metadata, "") if _is_large(array) else (array, metadata)


def _is_large(array: pa.Array) -> bool:
    return bool(array.nbytes > MAX_BYTES)


def _without(
    array: pa.Array, metadata: dict[str, Any], why: str
) -> tuple[pa.Array, dict[str, Any]]:
    """Return a message without data that says what was left out."""
    note = f"none of {array.nbytes} bytes" + (f": {why}" if why else "")
    return array.slice(0, 0), metadata | {"preview": note}


def _with_short_lists(array: pa.Array) -> tuple[pa.Array, list[str]]:
    """Return one struct with its long lists cut, and their names; other arrays as they are."""
    import pyarrow as pa

    if not pa.types.is_struct(array.type) or len(array) != 1 or array.null_count:
        return array, []
    columns, cut = [], []
    for field, column in zip(array.type, array.flatten(), strict=True):
        is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        if is_list and column.null_count == 0 and len(column.flatten()) > MAX_ELEMENTS:
            cut.append(f"{field.name}[{len(column.flatten())}]")
            values = column.flatten().slice(0, MAX_ELEMENTS)
            column = type(column).from_arrays([0, MAX_ELEMENTS], values, type=field.type)
        columns.append(column)
    return pa.StructArray.from_arrays(columns, fields=list(array.type)), cut
