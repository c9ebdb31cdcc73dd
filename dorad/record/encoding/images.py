"""Pictures as messages that viewers show: `foxglove.RawImage` and `foxglove.CompressedImage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import pyarrow as pa

from dorad.record.encoding.protobuf import (
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
_DEEP = {2: ("mono16", "16UC1"), 4: ("32FC1",)}
"""Encodings whose pixels may be numbers of 2 or 4 bytes."""
NAMES = {"gray8": "mono8", "gray16": "mono16", "GRAY8": "mono8"}
"""Names that viewers do not know."""
_FORMATS = {"jpeg": "jpeg", "jpg": "jpeg", "png": "png", "webp": "webp", "avif": "avif"}
_LARGEST = 1 << 31


class ImageHead(NamedTuple):
    """The message before its pixels, and the name of its schema."""

    name: str
    head: bytes


def encode_image(
    payload: bytes | memoryview, metadata: Mapping[str, Any], stamp: int, *, width: int = 1
) -> ImageHead | None:
    """Return the start of the message for a picture; None if the metadata describe none.

    `stamp` is the time of the message in ns since 1970, `width` the bytes of an item of its array.
    """
    encoding = metadata.get("encoding")
    if not isinstance(encoding, str):
        return None
    time = timestamp_field(1, stamp)
    if encoding.lower() in _FORMATS and width == 1:
        head = time + delimited(3, _FORMATS[encoding.lower()].encode()) + prefix(2, len(payload))
        return ImageHead(COMPRESSED_IMAGE, head)
    encoding = NAMES.get(encoding, encoding)
    pixel = _BYTES_PER_PIXEL.get(encoding)
    across, down = metadata.get("width"), metadata.get("height")
    if pixel is None or not (_is_size(across) and _is_size(down)):
        return None
    if across * down * pixel != len(payload) or (
        width > 1 and encoding not in _DEEP.get(width, ())
    ):
        return None
    sizes = fixed32(2, across) + fixed32(3, down)
    described = sizes + delimited(4, encoding.encode()) + fixed32(5, across * pixel)
    return ImageHead(RAW_IMAGE, time + described + prefix(6, len(payload)))


class Picture(NamedTuple):
    """A picture in a struct, such as `std/media/v1/Image`."""

    head: bytes
    """The message of `foxglove.RawImage` before its pixels."""
    pixels: memoryview


def encode_struct(array: pa.Array, stamp: int) -> Picture | None:
    """Return an array of one struct as a picture, without copying its pixels; None if it is none.

    Its members are `width` and `height` (UInt32), `encoding` (text) and `data` (binary), in any
    order, and the pixels are as many as these say: nothing is lost then.
    """
    if len(array) != 1 or not is_picture_type(array.type):
        return None
    row = array[0]
    width, height, encoding = (row[name].as_py() for name in ("width", "height", "encoding"))
    data = row["data"].as_buffer() if row.is_valid else None
    if data is None or encoding is None or encoding in NAMES:
        return None
    pixels = memoryview(data)
    picture = encode_image(pixels, {"width": width, "height": height, "encoding": encoding}, stamp)
    if picture is None or picture.name != RAW_IMAGE:
        return None
    return Picture(picture.head, pixels)


def is_picture_type(kind: pa.DataType) -> bool:
    """Return True for a struct with the members of `std/media/v1/Image`."""
    if not pa.types.is_struct(kind) or kind.num_fields != len(_MEMBERS):
        return False
    places = {name: kind.get_field_index(name) for name in _MEMBERS}
    return all(at >= 0 and _MEMBERS[name](kind.field(at).type) for name, at in places.items())


def decode_struct(kind: pa.DataType, members: Mapping[int, memoryview | int]) -> pa.Array:
    """Return the struct of a picture, by the fields of its message. Raises ValueError."""
    if not is_picture_type(kind):
        raise ValueError(f"an array of {kind} is in no message of this kind")
    width, height = members.get(2, 0), members.get(3, 0)
    encoding, data = members.get(4, b""), members.get(6, b"")
    if not isinstance(width, int) or not isinstance(height, int):
        raise ValueError("the size of a picture is not a number")
    if isinstance(encoding, int) or isinstance(data, int):
        raise ValueError("a picture has no pixels")
    row = {"width": width, "height": height, "encoding": bytes(encoding).decode(), "data": data}
    columns = [pa.array([row[member.name]], member.type) for member in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


_MEMBERS = {
    "width": pa.types.is_uint32,
    "height": pa.types.is_uint32,
    "encoding": _is_text,
    "data": _is_binary,
}


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST
