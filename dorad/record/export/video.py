"""Pictures of a recording as pixels, and a video of them, with the FFmpeg of PyAV."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dorad.record.encoding import images
from dorad.record.mcap.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.record.encoding.messages import Decoded

_FORMATS = {
    **{name: (name[:-1] + "24", 3) for name in ("rgb8", "bgr8")},
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
    "mono8": ("gray", 1),
    "8UC1": ("gray", 1),
    "8UC3": ("bgr24", 3),
    "mono16": ("gray16le", 2),
    "16UC1": ("gray16le", 2),
    "yuyv": ("yuyv422", 2),
    "uyvy": ("uyvy422", 2),
}
"""The name in FFmpeg, and the bytes of a pixel, of each encoding of plain pixels."""

_DECODERS = {"jpeg": "mjpeg", "jpg": "mjpeg", "png": "png", "webp": "webp"}
CODEC = "h264"


def is_picture(message: Decoded) -> bool:
    """Return True if a message is a picture that `pixels_of` knows."""
    return _parts(message) is not None


def _parts(message: Decoded) -> tuple[str, int, int, bytes] | None:
    """Return encoding, width, height and bytes of a picture; None if it is none."""
    array, metadata = message.array, message.metadata
    if len(array) == 1 and array.null_count == 0 and images.is_picture_type(array.type):
        row = array[0].as_py()
        encoding, width, height, data = (
            row[name] for name in ("encoding", "width", "height", "data")
        )
    elif array.type in (pa.uint8(), pa.uint16()) and not array.null_count:
        encoding, width, height = (metadata.get(name) for name in ("encoding", "width", "height"))
        data = array.to_numpy().tobytes()
    else:
        return None
    if not isinstance(encoding, str):
        return None
    encoding = images.NAMES.get(encoding, encoding)
    if encoding.lower() in _DECODERS:
        return encoding.lower(), 0, 0, data
    if encoding not in _FORMATS or not isinstance(width, int) or not isinstance(height, int):
        return None
    if width <= 0 or height <= 0 or len(data or b"") != width * height * _FORMATS[encoding][1]:
        return None
    return encoding, width, height, data


def pixels_of(message: Decoded) -> np.ndarray[Any, Any]:
    """Return a picture as an array of height, width and red, green, blue.

    Raises:
        RecordingError: PyAV is not installed.
        ValueError: it is no picture, or a damaged one.
    """
    av = _av()
    parts = _parts(message)
    if parts is None:
        raise ValueError("a message among pictures is none")
    encoding, width, height, data = parts
    if encoding in _DECODERS:
        try:
            decoder = av.CodecContext.create(_DECODERS[encoding], "r")
            frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        except av.FFmpegError as error:
            raise ValueError(f"a {encoding} picture cannot be decoded: {error}") from error
        if not frames:
            raise ValueError(f"a {encoding} picture cannot be decoded")
        frame = frames[0]
    else:
        name, size = _FORMATS[encoding]
        frame = av.VideoFrame(width, height, name)
        plane = frame.planes[0]
        lines = np.zeros((height, plane.line_size), np.uint8)
        lines[:, : width * size] = np.frombuffer(data, np.uint8).reshape(height, width * size)
        plane.update(lines.tobytes())
    pixels: np.ndarray[Any, Any] = frame.to_ndarray(format="rgb24")
    return pixels


class VideoWriter:
    """Writes pictures of one size as a video that every player shows."""

    def __init__(self, path: Path, shape: tuple[int, ...], fps: float) -> None:
        """`shape` is the height and the width, and 3 for the colours.

        Raises:
            RecordingError: PyAV is not installed.
        """
        self.shape = shape
        height, width = shape[:2]
        self._av = _av()
        self._container = self._av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator())
        # The colours of H.264 have half the size: it must be even.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # A reader that seeks to any moment decodes at most one picture more.
        self._stream.options = {"g": "2", "crf": "23"}
        self.feature: Mapping[str, Any] = {
            "dtype": "video",
            "shape": [self._stream.height, self._stream.width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": self._stream.height,
                "video.width": self._stream.width,
                "video.codec": CODEC,
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }

    def add(self, pixels: np.ndarray[Any, Any]) -> None:
        """Add a picture of this shape."""
        height, width = self.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise RecordingError(
            "pictures become a video with PyAV, which is not installed",
            "pip install 'dorad[lerobot]', or leave pictures out with --topics",
        ) from error
    return av
