"""Pictures as messages that viewers show: `foxglove.RawImage` and `foxglove.CompressedImage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from dorad.record.protobuf import (
    BYTES,
    FIXED32,
    STRING,
    Field,
    delimited,
    fixed32,
    foxglove_schema,
    prefix,
    timestamp_field,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

RAW_IMAGE = "foxglove.RawImage"
COMPRESSED_IMAGE = "foxglove.CompressedImage"

DATA_FIELDS = {RAW_IMAGE: 6, COMPRESSED_IMAGE: 2}
"""The field of the pixels, or of the file, of each kind of picture."""

SCHEMAS = {
    RAW_IMAGE: foxglove_schema(
        "RawImage",
        (
            Field("width", 2, FIXED32),
            Field("height", 3, FIXED32),
            Field("encoding", 4, STRING),
            Field("step", 5, FIXED32),
            Field("data", 6, BYTES),
            Field("frame_id", 7, STRING),
        ),
    ),
    COMPRESSED_IMAGE: foxglove_schema(
        "CompressedImage",
        (Field("data", 2, BYTES), Field("format", 3, STRING), Field("frame_id", 4, STRING)),
    ),
}

_BYTES_PER_PIXEL = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "8UC1": 1,
    "8UC3": 3,
    "mono16": 2,
    "16UC1": 2,
    "32FC1": 4,
    "yuyv": 2,
    "uyvy": 2,
}
_FORMATS = {"jpeg": "jpeg", "jpg": "jpeg", "png": "png", "webp": "webp", "avif": "avif"}
_LARGEST = 1 << 31


class ImageHead(NamedTuple):
    """The message before its pixels, and the name of its schema."""

    name: str
    head: bytes


def encode_image(payload: bytes, metadata: Mapping[str, Any], stamp: int) -> ImageHead | None:
    """Return the start of the message for a picture; None if the metadata describe none.

    `stamp` is the time of the message in ns since 1970.
    """
    encoding = metadata.get("encoding")
    if not isinstance(encoding, str):
        return None
    time = timestamp_field(1, stamp)
    if encoding.lower() in _FORMATS:
        head = time + delimited(3, _FORMATS[encoding.lower()].encode()) + prefix(2, len(payload))
        return ImageHead(COMPRESSED_IMAGE, head)
    pixel = _BYTES_PER_PIXEL.get(encoding)
    width, height = metadata.get("width"), metadata.get("height")
    if pixel is None or not (_is_size(width) and _is_size(height)):
        return None
    if width * height * pixel != len(payload):
        return None
    sizes = fixed32(2, width) + fixed32(3, height)
    described = sizes + delimited(4, encoding.encode()) + fixed32(5, width * pixel)
    return ImageHead(RAW_IMAGE, time + described + prefix(6, len(payload)))


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST
