"""Make the messages of a subscription fewer and smaller, where they come from."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dorad.control.messages import TopicSubscribe

MAX_ELEMENTS = 4096
"""Elements of an array that is not an image, in a preview."""
MAX_BYTES = 256 << 10
"""Bytes of a preview; a message that is still larger comes without its data."""
MAX_PIXELS = 4096
"""Maximum width and height of a preview."""
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "gray8": 1}
"""Encodings of plain pixels, with the bytes of a pixel."""


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
        if self._size is None or array is None:
            return array, metadata
        found = _image(array, metadata)
        if found is not None:
            return _smaller(found, metadata, self._size)
        if len(array) > MAX_ELEMENTS:
            metadata = metadata | {"preview": f"{MAX_ELEMENTS} of {len(array)} elements"}
            array = array.slice(0, MAX_ELEMENTS)
        if array.nbytes > MAX_BYTES:
            metadata = metadata | {"preview": f"none of {array.nbytes} bytes"}
            array = array.slice(0, 0)
        return array, metadata


def _image(array: pa.Array, metadata: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    """Return the pixels of an image, with the shape (height, width, bytes), or None."""
    import pyarrow as pa

    width, height = metadata.get("width"), metadata.get("height")
    channels = CHANNELS.get(str(metadata.get("encoding", "")).lower())
    if channels is None or array.type != pa.uint8() or array.null_count:
        return None
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        return None
    if len(array) != width * height * channels:
        return None
    pixels: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=True)
    return pixels.reshape(height, width, channels)


def _smaller(
    pixels: np.ndarray[Any, Any], metadata: dict[str, Any], size: tuple[int, int]
) -> tuple[pa.Array, dict[str, Any]]:
    import numpy as np
    import pyarrow as pa

    height, width, channels = pixels.shape
    scale = min(1.0, size[0] / width, size[1] / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    columns = (np.arange(across) + 0.5) * width / across
    rows = (np.arange(down) + 0.5) * height / down
    small = pixels[rows.astype(int)][:, columns.astype(int)]
    name = str(metadata["encoding"]).lower()
    if channels == 1:
        small = np.repeat(small, 3, axis=2)
    elif name.startswith("bgr"):
        small = small[:, :, 2::-1]
    else:
        small = small[:, :, :3]
    changed = {
        "width": across,
        "height": down,
        "encoding": "rgb8",
        "preview": f"{width}x{height} {name}",
    }
    return pa.array(np.ascontiguousarray(small).reshape(-1)), metadata | changed
