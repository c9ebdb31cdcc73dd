"""Extra builders and members for media types: numpy arrays of the right shape."""

from __future__ import annotations

from typing import NamedTuple


class Special(NamedTuple):
    """A builder that replaces the default one, and additional members for the reader."""

    builder: str
    members: str


_IMAGE = Special(
    '''\
def {function}(
    pixels: NDArray[Any],
    encoding: str | None = None,
) -> pa.StructArray:
    """Build one `{urn}` from an array of height x width (x channels).

    The default encoding is mono8, rgb8, rgba8, mono16, 32FC1 or 32FC3, by the layout.
    The array's memory is shared if it is contiguous.
    """
    return _struct(
        {name}.TYPE,
        pixels.shape[1] if pixels.ndim > 1 else 0,
        pixels.shape[0],
        _encoding(pixels, encoding),
        pixels,
    )
''',
    '''\
    @property
    def pixels(self) -> NDArray[Any]:
        """Return the picture as height x width x channels, a view of the message."""
        return _pixels(self.data, self.height, self.width, self.encoding)
''',
)

_POINTS = Special(
    '''\
def {function}(
    points: NDArray[Any],
) -> pa.StructArray:
    """Build one `{urn}` from points x values, or height x width x values.

    The array's memory is shared if it is contiguous.
    """
    if points.ndim not in (2, 3):
        raise ValueError(f"points are count x values, not {{points.shape}}")
    return _struct(
        {name}.TYPE,
        points,
        points.shape[-2],
        points.shape[0] if points.ndim == 3 else 1,
    )
''',
    '''\
    def values(self, kind: type[Any] = np.float32) -> NDArray[Any]:
        """Return the points as height x width x values, a view of the message."""
        flat = _as(self.points, kind)
        count = self.height * self.width
        per_point = flat.size // count if count else 0
        return flat.reshape(self.height, self.width, per_point)
''',
)

_AUDIO = Special(
    '''\
def {function}(
    samples: NDArray[Any],
    sample_rate: int,
) -> pa.StructArray:
    """Build one `{urn}` from an array of frames (x channels).

    The array's memory is shared if it is contiguous.
    """
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples are frames x channels, not {{samples.shape}}")
    return _struct(
        {name}.TYPE,
        sample_rate,
        samples.shape[1] if samples.ndim == 2 else 1,
        samples,
    )
''',
    '''\
    def samples(self, sample_type: str = "f32") -> NDArray[Any]:
        """Return the samples as frames x channels, a view of the message.

        `sample_type` is f32, f64, i16, i32 or u8.
        """
        flat = _as(self.data, _SAMPLES[sample_type])
        return flat.reshape(-1, self.channels)
''',
)

_MASK = Special(
    '''\
def {function}(
    mask: NDArray[np.uint8],
    class_names: Iterable[str],
    num_classes: int | None = None,
) -> pa.StructArray:
    """Build one `{urn}` from an array of height x width class numbers.

    The default of `num_classes` is the number of names. The array's memory is shared if
    it is contiguous.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"a mask is height x width of uint8, not {{mask.shape}}")
    names = list(class_names)
    return _struct(
        {name}.TYPE,
        mask.shape[1],
        mask.shape[0],
        len(names) if num_classes is None else num_classes,
        mask,
        names,
    )
''',
    '''\
    @property
    def labels(self) -> NDArray[np.uint8]:
        """Return the class of each pixel as height x width, a view of the message."""
        return self.mask.reshape(self.height, self.width)
''',
)

SPECIAL = {
    "std/media/v1/Image": _IMAGE,
    "std/media/v1/PointCloud": _POINTS,
    "std/media/v1/AudioFrame": _AUDIO,
    "std/vision/v1/Segmentation": _MASK,
}
