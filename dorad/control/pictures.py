"""Pictures in messages: plain pixels, depth, and files such as JPEG, as few pixels of RGB."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa

MAX_PIXELS = 13_000_000
"""Pixels of a file that is decoded: those of a camera with 12 megapixels. A bomb has more."""
MAX_FILE = 16 << 20
"""Bytes of a file that is decoded."""
SAMPLES = 3
"""A pixel of a small picture is the mean of up to SAMPLES x SAMPLES of the large one."""

_PLAIN = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "gray8": ("u1", 1),
    "8uc1": ("u1", 1),
    "8uc3": ("u1", 3),
    "mono16": ("u2", 1),
    "gray16": ("u2", 1),
    "16uc1": ("u2", 1),
    "32fc1": ("f4", 1),
}
"""Encodings of plain pixels: the type of a number, and the numbers of a pixel."""
_BLUE_FIRST = ("bgr8", "bgra8", "8uc3")
_FILES = {"jpeg": "JPEG", "jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Encodings of files, and what Pillow calls them."""


class PictureError(ValueError):
    """A message says that it is a picture, and cannot be shown as one."""


class DecoderMissingError(PictureError):
    """The picture is a file, and Pillow is not installed."""


class Picture(NamedTuple):
    """A picture with three bytes a pixel, row by row."""

    pixels: bytes
    width: int
    height: int
    was: str
    """What it was, such as `640x480 bgr8`; of depth also the range that is shown."""


class _Source(NamedTuple):
    data: np.ndarray[Any, Any]
    """Its bytes."""
    encoding: str
    width: int
    height: int
    step: int
    """Bytes of a row; 0 if there are none between two rows."""
    big_endian: bool


def small_picture(
    array: pa.Array | None, metadata: Mapping[str, Any], size: tuple[int, int]
) -> Picture | None:
    """Return the picture of a message so that it fits into `size` pixels; None if it has none.

    Its width, height and encoding are in the metadata, or beside its data in a struct.

    Raises:
        DecoderMissingError: Pillow is needed and not installed.
        PictureError: it is damaged, or too large to be decoded.
    """
    source = None if array is None else _source(array, metadata)
    if source is None:
        return None
    name = source.encoding.lower()
    if name in _FILES:
        pixels, across, down = _decoded(source.data, _FILES[name], size)
    else:
        pixels, across, down = _plain(source), source.width, source.height
    note = f"{across}x{down} {source.encoding}"
    deep = pixels.dtype.itemsize > 1
    # The mean of something near and something far is neither.
    small = resized(pixels, size, samples=1 if deep else SAMPLES)
    if deep:
        small, limits = _shaded(small)
        note += limits
    elif name in _BLUE_FIRST:
        small = small[:, :, 2::-1]
    height, width = small.shape[:2]
    return Picture(_rgb(small).tobytes(), width, height, note)


def resized(
    pixels: np.ndarray[Any, Any], size: tuple[int, int], *, samples: int = SAMPLES
) -> np.ndarray[Any, Any]:
    """Return pixels, of the shape (height, width, numbers), that fit into `size`, not enlarged."""
    import numpy as np

    height, width, numbers = pixels.shape
    scale = min(1.0, size[0] / width, size[1] / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    if (across, down) == (width, height):
        return pixels
    by_x, by_y = min(samples, max(1, width // across)), min(samples, max(1, height // down))
    xs = ((np.arange(across * by_x) + 0.5) * width / (across * by_x)).astype(int)
    ys = ((np.arange(down * by_y) + 0.5) * height / (down * by_y)).astype(int)
    chosen: np.ndarray[Any, Any] = pixels[ys][:, xs]
    if by_x == by_y == 1:
        return chosen
    blocks = chosen.reshape(down, by_y, across, by_x, numbers)
    mean: np.ndarray[Any, Any] = blocks.mean(axis=(1, 3)).round()
    return mean.astype(pixels.dtype)


def _source(array: pa.Array, metadata: Mapping[str, Any]) -> _Source | None:
    """Return the bytes of a picture, with what says how to read them; None if it is none."""
    import pyarrow as pa

    row: Mapping[str, Any] = metadata
    if pa.types.is_struct(array.type):
        names = {field.name for field in array.type}
        if len(array) != 1 or not array.is_valid()[0].as_py() or not _describes(names):
            return None
        scalar = array[0]
        row = {
            name: scalar[name].as_py()
            for name in ("width", "height", "encoding", "format", "step", "is_bigendian")
            if name in names
        }
        held = array.field(array.type.get_field_index("data"))
        data = _bytes(held.flatten() if _is_list(held.type) else held)
    else:
        data = _bytes(array)
    encoding = row.get("encoding") or row.get("format")
    if data is None or not isinstance(encoding, str):
        return None
    # ROS says how a file was made: `rgb8; jpeg compressed bgr8`.
    words = encoding.lower().replace(";", " ").split()
    encoding = next((word for word in words if word in _FILES), encoding)
    if encoding.lower() in _FILES:
        return _Source(data, encoding, 0, 0, 0, big_endian=False)
    width, height, step = row.get("width"), row.get("height"), row.get("step")
    if encoding.lower() not in _PLAIN or not (_is_size(width) and _is_size(height)):
        return None
    assert isinstance(width, int) and isinstance(height, int)
    wide = width * _pixel_bytes(encoding)
    step = step if isinstance(step, int) and step > wide else wide
    if len(data) != step * height:
        return None
    return _Source(data, encoding, width, height, step, bool(row.get("is_bigendian")))


def _describes(names: set[str]) -> bool:
    return "data" in names and ("format" in names or {"width", "height", "encoding"} <= names)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _bytes(array: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return the bytes of numbers, or of one binary value, without copying; None of others."""
    import numpy as np
    import pyarrow as pa

    if array.null_count:
        return None
    if array.type in (pa.uint8(), pa.uint16(), pa.float32()):
        numbers: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=True)
        return numbers.view(np.uint8)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return np.frombuffer(array[0].as_buffer(), np.uint8) if len(array) == 1 else None
    return None


def _pixel_bytes(encoding: str) -> int:
    kind, numbers = _PLAIN[encoding.lower()]
    return int(kind[1]) * numbers


def _plain(source: _Source) -> np.ndarray[Any, Any]:
    """Return plain pixels with the shape (height, width, numbers)."""
    kind, numbers = _PLAIN[source.encoding.lower()]
    wide = source.width * _pixel_bytes(source.encoding)
    rows = source.data.reshape(source.height, source.step)[:, :wide]
    if source.step != wide:
        rows = rows.copy()  # there are bytes between two rows
    order = ">" if source.big_endian else "<"
    return rows.view(order + kind).reshape(source.height, source.width, numbers)


def _decoded(
    data: np.ndarray[Any, Any], kind: str, size: tuple[int, int]
) -> tuple[np.ndarray[Any, Any], int, int]:
    """Return the pixels of a file, and the width and height that it has."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise DecoderMissingError(
            f"a picture in {kind} needs Pillow, which is not installed"
        ) from error
    if len(data) > MAX_FILE:
        raise PictureError(f"a {kind} of {len(data)} bytes is too large")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # No other format: each has a decoder of its own that may have faults.
            with Image.open(io.BytesIO(data.tobytes()), formats=(kind,)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(f"a {kind} of {width}x{height} pixels is too large")
                # A JPEG is decoded with no more pixels than are used.
                image.draft("RGB", (size[0] * SAMPLES, size[1] * SAMPLES))
                deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
                pixels = np.asarray(image if deep else image.convert("RGB"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PictureError(f"a {kind} with too many pixels: {error}") from error
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError) as error:
            if isinstance(error, PictureError):
                raise
            raise PictureError(f"a damaged {kind}: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1), width, height


def _shaded(deep: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """Return depth, or another number for each pixel, as grey; and the range that is shown.

    What is not known (0, or no number) is black.
    """
    import numpy as np

    values = deep.astype(np.float64)
    known = np.isfinite(values) & (values > 0)
    grey = np.zeros(values.shape, np.uint8)
    if not known.any():
        return grey, ", nothing known"
    low, high = np.percentile(values[known], (1, 99))
    spread = np.clip((values[known] - low) / (high - low or 1.0), 0.0, 1.0)
    grey[known] = (32 + spread * 223).astype(np.uint8)
    return grey, f", {low:.4g} to {high:.4g}"


def _rgb(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    three = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return np.ascontiguousarray(three)
