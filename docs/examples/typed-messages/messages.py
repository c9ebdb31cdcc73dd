"""Builders and readers for typed messages; made by `dora types generate`.

A builder such as `image(...)` gives the array to send, a reader such as `Image(value)`
looks into one that was received. Neither copies arrays of numbers. Do not edit: make it
again when the types have changed.
"""

# mypy: disable-error-code="import-untyped"
# ruff: noqa

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

_T = TypeVar("_T")
_BytesLike = bytes | bytearray | memoryview | NDArray[Any]


def _lists(item: pa.DataType, depth: int) -> pa.DataType:
    return pa.large_list(_lists(item, depth - 1) if depth > 1 else item)


class Reader:
    """One value of a struct array, read where it lies; it cannot be changed."""

    __slots__ = ("array", "index")
    URN: ClassVar[str] = ""
    TYPE: ClassVar[pa.DataType] = pa.struct([])
    array: pa.StructArray
    index: int

    def __init__(self, array: pa.StructArray, index: int = 0) -> None:
        """Raise TypeError for data of another type, IndexError for no such value."""
        kind = array.type
        if not pa.types.is_struct(kind):
            raise TypeError(f"not {self.URN}: {kind}")
        for field in self.TYPE if kind != self.TYPE else ():
            if kind.get_field_index(field.name) < 0:
                raise TypeError(f"not {self.URN}: there is no field {field.name!r}")
        if not 0 <= index < len(array):
            raise IndexError(f"{self.URN}: there is no value {index} in {len(array)}")
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "index", index)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse."""
        raise AttributeError(f"{self.URN} is read-only")

    def __repr__(self) -> str:
        """Say which value of which type it is."""
        return f"<{self.URN}, {self.index + 1} of {len(self.array)}>"

    @classmethod
    def each(cls, array: pa.StructArray) -> list[Self]:
        """Return a reader for every value."""
        return [cls(array, index) for index in range(len(array))]

    def is_null(self, field: str) -> bool:
        """Tell whether a field has no value; reading it would raise ValueError."""
        return not self.array.field(field)[self.index].is_valid

    def _at(self, field: str) -> tuple[pa.Array, int]:
        return self.array.field(field), self.index


def _only(array: pa.Array, index: int) -> pa.Array:
    one = array.slice(index, 1)
    if one.null_count:
        raise ValueError("the value is null")
    return one


def _valid(array: pa.Array, index: int) -> Any:
    return _only(array, index)[0]


def _float(array: pa.Array, index: int) -> float:
    return float(_valid(array, index).as_py())


def _int(array: pa.Array, index: int) -> int:
    return int(_valid(array, index).as_py())


def _bool(array: pa.Array, index: int) -> bool:
    return bool(_valid(array, index).as_py())


def _text(array: pa.Array, index: int) -> str:
    return str(_valid(array, index).as_py())


def _any(array: pa.Array, index: int) -> Any:
    return _valid(array, index).as_py()


def _moment(array: pa.Array, index: int) -> np.datetime64:
    return np.datetime64(_only(array, index).to_numpy(zero_copy_only=False)[0])


def _span(array: pa.Array, index: int) -> np.timedelta64:
    return np.timedelta64(_only(array, index).to_numpy(zero_copy_only=False)[0])


def _bytes(array: pa.Array, index: int) -> NDArray[np.uint8]:
    one = _only(array, index)
    if pa.types.is_large_binary(one.type):
        offset: type[Any] = np.int64
    elif pa.types.is_binary(one.type):
        offset = np.int32
    else:
        return np.frombuffer(one[0].as_py(), np.uint8)
    _, offsets, data = one.buffers()
    start, end = np.frombuffer(offsets, offset)[one.offset : one.offset + 2]
    if start == end:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, end - start, start)


def _numbers(array: pa.Array, kind: type[Any]) -> NDArray[Any]:
    if array.null_count:
        raise ValueError(f"{array.null_count} values are null")
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.astype(kind, copy=False)


def _vector(array: pa.Array, index: int, kind: type[Any]) -> NDArray[Any]:
    return _numbers(_valid(array, index).values, kind)


def _items(
    array: pa.Array,
    index: int,
    read: Callable[[pa.Array, int], _T],
) -> list[_T]:
    values = _valid(array, index).values
    return [read(values, at) for at in range(len(values))]


def _nested(
    array: pa.Array,
    index: int,
    read: Callable[[pa.Array, int], Any],
    depth: int,
) -> list[Any]:
    if depth == 1:
        return _items(array, index, read)
    return _items(array, index, lambda inner, at: _nested(inner, at, read, depth - 1))


def _vector_of(kind: type[Any]) -> Callable[[pa.Array, int], NDArray[Any]]:
    return lambda array, index: _vector(array, index, kind)


def _whole_bytes(array: pa.Array) -> NDArray[np.uint8]:
    if pa.types.is_uint8(array.type):
        return _numbers(array, np.uint8)
    return _bytes(array, 0)


def _binary(data: _BytesLike) -> pa.LargeBinaryArray:
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    buffer = pa.py_buffer(data)
    offsets = pa.py_buffer(np.array([0, buffer.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])


def _as(data: NDArray[np.uint8], kind: Any) -> NDArray[Any]:
    view: NDArray[Any] = data.view(kind)
    return view


_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _array(kind: pa.DataType, values: Any) -> pa.Array:
    numbers = np.asarray(values, _FLOATS.get(str(kind), str(kind)))
    if numbers.ndim != 1:
        numbers = numbers.reshape(-1)
    return pa.array(np.ascontiguousarray(numbers), kind)


def _times(kind: pa.DataType, values: Any) -> pa.Array:
    letter = "m" if pa.types.is_duration(kind) else "M"
    unit = "D" if pa.types.is_date(kind) else kind.unit
    return pa.array(np.asarray(values, f"{letter}8[{unit}]")).cast(kind)


def _list(kind: pa.DataType, values: Iterable[Any]) -> pa.LargeListArray:
    item = kind.value_type
    if pa.types.is_integer(item) or pa.types.is_floating(item):
        array = _array(item, values)
    elif pa.types.is_nested(item) or pa.types.is_large_binary(item):
        parts = [_one(item, value) for value in values]
        array = pa.concat_arrays(parts) if parts else pa.array([], item)
    elif isinstance(values, str):
        raise TypeError("a list of texts is expected, not one text")
    elif pa.types.is_temporal(item):
        array = _times(item, list(values))
    else:
        array = pa.array(list(values), item)
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


def _one(kind: pa.DataType, value: Any) -> pa.Array:
    if isinstance(value, Reader):
        value = value.array.slice(value.index, 1)
    if pa.types.is_struct(kind) and not kind.num_fields:
        return value if isinstance(value, pa.StructArray) else pa.array([value])
    if isinstance(value, pa.StructArray):
        if value.type != kind or len(value) != 1:
            raise TypeError(f"one {kind} is expected, not {len(value)} of {value.type}")
        return value
    if pa.types.is_large_list(kind):
        return _list(kind, value)
    if pa.types.is_large_binary(kind):
        return _binary(value)
    if pa.types.is_temporal(kind):
        return _times(kind, [value])
    return pa.array([value], kind)


def _struct(kind: pa.StructType, *values: Any) -> pa.StructArray:
    pairs = zip(kind, values, strict=True)
    parts = [_one(field.type, value) for field, value in pairs]
    types = zip(kind, parts, strict=True)
    fields = [field.with_type(part.type) for field, part in types]
    return pa.StructArray.from_arrays(parts, fields=fields)


_ENCODINGS = {
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    "rgb8": ("uint8", 3),
    "bgr8": ("uint8", 3),
    "rgba8": ("uint8", 4),
    "bgra8": ("uint8", 4),
    "yuv422": ("uint8", 2),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
    "32FC3": ("float32", 3),
}
_GUESSES = ("mono8", "rgb8", "rgba8", "mono16", "32FC1", "32FC3")


def _encoding(pixels: NDArray[Any], given: str | None) -> str:
    if pixels.ndim not in (2, 3):
        raise ValueError(f"a picture is height x width x channels, not {pixels.shape}")
    layout = (str(pixels.dtype), pixels.shape[2] if pixels.ndim == 3 else 1)
    if given is None:
        for encoding in _GUESSES:
            if _ENCODINGS[encoding] == layout:
                return encoding
        raise ValueError(f"say the encoding of {layout[1]} channels of {layout[0]}")
    if _ENCODINGS.get(given, layout) != layout:
        raise ValueError(f"{given} is not {layout[1]} channels of {layout[0]}")
    return given


def _pixels(
    data: NDArray[np.uint8],
    height: int,
    width: int,
    encoding: str,
) -> NDArray[Any]:
    kind, channels = _ENCODINGS.get(encoding, ("uint8", 0))
    if not channels:
        channels = data.size // (height * width) if height * width else 1
    return _as(data, kind).reshape(height, width, channels)


_SAMPLES = {
    "f32": "float32",
    "f64": "float64",
    "i16": "int16",
    "i32": "int32",
    "u8": "uint8",
}


def float32(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Float32`: 32-bit floating-point numbers."""
    return _array(pa.float32(), data)


def read_float32(value: pa.Array) -> NDArray[np.float32]:
    """Read `std/core/v1/Float32`."""
    return _numbers(value, np.float32)


def float64(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Float64`: 64-bit floating-point numbers."""
    return _array(pa.float64(), data)


def read_float64(value: pa.Array) -> NDArray[np.float64]:
    """Read `std/core/v1/Float64`."""
    return _numbers(value, np.float64)


def int8(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Int8`: 8-bit integers."""
    return _array(pa.int8(), data)


def read_int8(value: pa.Array) -> NDArray[np.int8]:
    """Read `std/core/v1/Int8`."""
    return _numbers(value, np.int8)


def int16(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Int16`: 16-bit integers."""
    return _array(pa.int16(), data)


def read_int16(value: pa.Array) -> NDArray[np.int16]:
    """Read `std/core/v1/Int16`."""
    return _numbers(value, np.int16)


def int32(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Int32`: 32-bit integers."""
    return _array(pa.int32(), data)


def read_int32(value: pa.Array) -> NDArray[np.int32]:
    """Read `std/core/v1/Int32`."""
    return _numbers(value, np.int32)


def int64(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/Int64`: 64-bit integers."""
    return _array(pa.int64(), data)


def read_int64(value: pa.Array) -> NDArray[np.int64]:
    """Read `std/core/v1/Int64`."""
    return _numbers(value, np.int64)


def uint8(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/UInt8`: 8-bit unsigned integers."""
    return _array(pa.uint8(), data)


def read_uint8(value: pa.Array) -> NDArray[np.uint8]:
    """Read `std/core/v1/UInt8`."""
    return _numbers(value, np.uint8)


def uint16(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/UInt16`: 16-bit unsigned integers."""
    return _array(pa.uint16(), data)


def read_uint16(value: pa.Array) -> NDArray[np.uint16]:
    """Read `std/core/v1/UInt16`."""
    return _numbers(value, np.uint16)


def uint32(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/UInt32`: 32-bit unsigned integers."""
    return _array(pa.uint32(), data)


def read_uint32(value: pa.Array) -> NDArray[np.uint32]:
    """Read `std/core/v1/UInt32`."""
    return _numbers(value, np.uint32)


def uint64(
    data: ArrayLike,
) -> pa.Array:
    """`std/core/v1/UInt64`: 64-bit unsigned integers."""
    return _array(pa.uint64(), data)


def read_uint64(value: pa.Array) -> NDArray[np.uint64]:
    """Read `std/core/v1/UInt64`."""
    return _numbers(value, np.uint64)


def string(
    data: str | Iterable[str],
) -> pa.Array:
    """`std/core/v1/String`: text."""
    values = [data] if isinstance(data, str) else list(data)
    return pa.array(values, pa.string())


def read_string(value: pa.Array) -> list[str]:
    """Read `std/core/v1/String`."""
    return [_text(value, at) for at in range(len(value))]


def bytes_(
    data: _BytesLike,
) -> pa.Array:
    """`std/core/v1/Bytes`: bytes; an input of this type takes everything."""
    return _binary(data)


def read_bytes(value: pa.Array) -> NDArray[np.uint8]:
    """Read `std/core/v1/Bytes`."""
    return _whole_bytes(value)


def bool_(
    data: bool | Iterable[bool],
) -> pa.Array:
    """`std/core/v1/Bool`: truth values."""
    values = [data] if isinstance(data, bool) else list(data)
    return pa.array(values, pa.bool_())


def read_bool(value: pa.Array) -> NDArray[np.bool_]:
    """Read `std/core/v1/Bool`."""
    return _numbers(value, np.bool_)


class Vector3(Reader):
    """`std/math/v1/Vector3`: a vector or a position, or a rate of turning about three axes."""

    __slots__ = ()
    URN: ClassVar[str] = "std/math/v1/Vector3"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("x", pa.float64()),
            pa.field("y", pa.float64()),
            pa.field("z", pa.float64()),
        ]
    )

    @property
    def x(self) -> float:
        """The field `x`."""
        return _float(*self._at("x"))

    @property
    def y(self) -> float:
        """The field `y`."""
        return _float(*self._at("y"))

    @property
    def z(self) -> float:
        """The field `z`."""
        return _float(*self._at("z"))

    def numpy(self) -> NDArray[np.float64]:
        """All fields as one array, which is a copy."""
        values = [_any(*self._at(field.name)) for field in self.TYPE]
        return np.array(values, np.float64)


def vector3(
    x: float,
    y: float,
    z: float,
) -> pa.StructArray:
    """Build one `std/math/v1/Vector3`."""
    return _struct(
        Vector3.TYPE,
        x,
        y,
        z,
    )


class Quaternion(Reader):
    """`std/math/v1/Quaternion`: an orientation."""

    __slots__ = ()
    URN: ClassVar[str] = "std/math/v1/Quaternion"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("x", pa.float64()),
            pa.field("y", pa.float64()),
            pa.field("z", pa.float64()),
            pa.field("w", pa.float64()),
        ]
    )

    @property
    def x(self) -> float:
        """The field `x`."""
        return _float(*self._at("x"))

    @property
    def y(self) -> float:
        """The field `y`."""
        return _float(*self._at("y"))

    @property
    def z(self) -> float:
        """The field `z`."""
        return _float(*self._at("z"))

    @property
    def w(self) -> float:
        """The field `w`."""
        return _float(*self._at("w"))

    def numpy(self) -> NDArray[np.float64]:
        """All fields as one array, which is a copy."""
        values = [_any(*self._at(field.name)) for field in self.TYPE]
        return np.array(values, np.float64)


def quaternion(
    x: float,
    y: float,
    z: float,
    w: float,
) -> pa.StructArray:
    """Build one `std/math/v1/Quaternion`."""
    return _struct(
        Quaternion.TYPE,
        x,
        y,
        z,
        w,
    )


class Pose(Reader):
    """`std/math/v1/Pose`: where something is, and how it is turned."""

    __slots__ = ()
    URN: ClassVar[str] = "std/math/v1/Pose"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("position", Vector3.TYPE),
            pa.field("orientation", Quaternion.TYPE),
        ]
    )

    @property
    def position(self) -> Vector3:
        """The field `position`."""
        return Vector3(*self._at("position"))

    @property
    def orientation(self) -> Quaternion:
        """The field `orientation`."""
        return Quaternion(*self._at("orientation"))


def pose(
    position: Vector3 | pa.StructArray,
    orientation: Quaternion | pa.StructArray,
) -> pa.StructArray:
    """Build one `std/math/v1/Pose`."""
    return _struct(
        Pose.TYPE,
        position,
        orientation,
    )


class Transform(Reader):
    """`std/math/v1/Transform`: how one frame lies in another."""

    __slots__ = ()
    URN: ClassVar[str] = "std/math/v1/Transform"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("translation", Vector3.TYPE),
            pa.field("rotation", Quaternion.TYPE),
        ]
    )

    @property
    def translation(self) -> Vector3:
        """The field `translation`."""
        return Vector3(*self._at("translation"))

    @property
    def rotation(self) -> Quaternion:
        """The field `rotation`."""
        return Quaternion(*self._at("rotation"))


def transform(
    translation: Vector3 | pa.StructArray,
    rotation: Quaternion | pa.StructArray,
) -> pa.StructArray:
    """Build one `std/math/v1/Transform`."""
    return _struct(
        Transform.TYPE,
        translation,
        rotation,
    )


class Twist(Reader):
    """`std/control/v1/Twist`: velocities: linear in m/s, angular in rad/s."""

    __slots__ = ()
    URN: ClassVar[str] = "std/control/v1/Twist"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("linear", Vector3.TYPE),
            pa.field("angular", Vector3.TYPE),
        ]
    )

    @property
    def linear(self) -> Vector3:
        """The field `linear`."""
        return Vector3(*self._at("linear"))

    @property
    def angular(self) -> Vector3:
        """The field `angular`."""
        return Vector3(*self._at("angular"))


def twist(
    linear: Vector3 | pa.StructArray,
    angular: Vector3 | pa.StructArray,
) -> pa.StructArray:
    """Build one `std/control/v1/Twist`."""
    return _struct(
        Twist.TYPE,
        linear,
        angular,
    )


class JointState(Reader):
    """`std/control/v1/JointState`: the joints of a robot, one entry of each list for each joint."""

    __slots__ = ()
    URN: ClassVar[str] = "std/control/v1/JointState"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("names", pa.large_list(pa.string())),
            pa.field("positions", pa.large_list(pa.float64())),
            pa.field("velocities", pa.large_list(pa.float64())),
            pa.field("efforts", pa.large_list(pa.float64())),
        ]
    )

    @property
    def names(self) -> list[str]:
        """The field `names`."""
        return _items(*self._at("names"), _text)

    @property
    def positions(self) -> NDArray[np.float64]:
        """The field `positions`."""
        return _vector(*self._at("positions"), np.float64)

    @property
    def velocities(self) -> NDArray[np.float64]:
        """The field `velocities`."""
        return _vector(*self._at("velocities"), np.float64)

    @property
    def efforts(self) -> NDArray[np.float64]:
        """The field `efforts`."""
        return _vector(*self._at("efforts"), np.float64)


def joint_state(
    names: Iterable[str],
    positions: ArrayLike,
    velocities: ArrayLike,
    efforts: ArrayLike,
) -> pa.StructArray:
    """Build one `std/control/v1/JointState`."""
    return _struct(
        JointState.TYPE,
        names,
        positions,
        velocities,
        efforts,
    )


class Odometry(Reader):
    """`std/control/v1/Odometry`: a pose and its rate of change, in a frame."""

    __slots__ = ()
    URN: ClassVar[str] = "std/control/v1/Odometry"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("pose", Pose.TYPE),
            pa.field("twist", Twist.TYPE),
            pa.field("frame_id", pa.string()),
        ]
    )

    @property
    def pose(self) -> Pose:
        """The field `pose`."""
        return Pose(*self._at("pose"))

    @property
    def twist(self) -> Twist:
        """The field `twist`."""
        return Twist(*self._at("twist"))

    @property
    def frame_id(self) -> str:
        """The field `frame_id`."""
        return _text(*self._at("frame_id"))


def odometry(
    pose: Pose | pa.StructArray,
    twist: Twist | pa.StructArray,
    frame_id: str,
) -> pa.StructArray:
    """Build one `std/control/v1/Odometry`."""
    return _struct(
        Odometry.TYPE,
        pose,
        twist,
        frame_id,
    )


class Image(Reader):
    """`std/media/v1/Image`: an uncompressed picture: rows from the top, as `encoding` says."""

    __slots__ = ()
    URN: ClassVar[str] = "std/media/v1/Image"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("width", pa.uint32()),
            pa.field("height", pa.uint32()),
            pa.field("encoding", pa.string()),
            pa.field("data", pa.large_binary()),
        ]
    )

    @property
    def width(self) -> int:
        """The field `width`."""
        return _int(*self._at("width"))

    @property
    def height(self) -> int:
        """The field `height`."""
        return _int(*self._at("height"))

    @property
    def encoding(self) -> str:
        """The field `encoding`."""
        return _text(*self._at("encoding"))

    @property
    def data(self) -> NDArray[np.uint8]:
        """The field `data`."""
        return _bytes(*self._at("data"))

    @property
    def pixels(self) -> NDArray[Any]:
        """The picture as height x width x channels, a view of the message."""
        return _pixels(self.data, self.height, self.width, self.encoding)


def image(
    pixels: NDArray[Any],
    encoding: str | None = None,
) -> pa.StructArray:
    """Build one `std/media/v1/Image` of an array of height x width (x channels).

    Without an encoding it is guessed: mono8, rgb8, rgba8, mono16, 32FC1 or 32FC3.
    The array's memory is shared if it is contiguous.
    """
    return _struct(
        Image.TYPE,
        pixels.shape[1] if pixels.ndim > 1 else 0,
        pixels.shape[0],
        _encoding(pixels, encoding),
        pixels,
    )


def compressed_image(
    data: _BytesLike,
) -> pa.Array:
    """`std/media/v1/CompressedImage`: a picture as the bytes of a file: JPEG, PNG."""
    return _binary(data)


def read_compressed_image(value: pa.Array) -> NDArray[np.uint8]:
    """Read `std/media/v1/CompressedImage`."""
    return _whole_bytes(value)


class PointCloud(Reader):
    """`std/media/v1/PointCloud`: points, in rows if the sensor has rows, else in one."""

    __slots__ = ()
    URN: ClassVar[str] = "std/media/v1/PointCloud"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("points", pa.large_binary()),
            pa.field("width", pa.uint32()),
            pa.field("height", pa.uint32()),
        ]
    )

    @property
    def points(self) -> NDArray[np.uint8]:
        """The field `points`."""
        return _bytes(*self._at("points"))

    @property
    def width(self) -> int:
        """The field `width`."""
        return _int(*self._at("width"))

    @property
    def height(self) -> int:
        """The field `height`."""
        return _int(*self._at("height"))

    def values(self, kind: type[Any] = np.float32) -> NDArray[Any]:
        """The points as height x width x values, a view of the message."""
        flat = _as(self.points, kind)
        count = self.height * self.width
        per_point = flat.size // count if count else 0
        return flat.reshape(self.height, self.width, per_point)


def point_cloud(
    points: NDArray[Any],
) -> pa.StructArray:
    """Build one `std/media/v1/PointCloud` of an array of points x values, or height x width x values.

    The array's memory is shared if it is contiguous.
    """
    if points.ndim not in (2, 3):
        raise ValueError(f"points are count x values, not {points.shape}")
    return _struct(
        PointCloud.TYPE,
        points,
        points.shape[-2],
        points.shape[0] if points.ndim == 3 else 1,
    )


class AudioFrame(Reader):
    """`std/media/v1/AudioFrame`: samples, those of all channels side by side."""

    __slots__ = ()
    URN: ClassVar[str] = "std/media/v1/AudioFrame"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("sample_rate", pa.uint32()),
            pa.field("channels", pa.uint32()),
            pa.field("data", pa.large_binary()),
        ]
    )

    @property
    def sample_rate(self) -> int:
        """The field `sample_rate`."""
        return _int(*self._at("sample_rate"))

    @property
    def channels(self) -> int:
        """The field `channels`."""
        return _int(*self._at("channels"))

    @property
    def data(self) -> NDArray[np.uint8]:
        """The field `data`."""
        return _bytes(*self._at("data"))

    def samples(self, sample_type: str = "f32") -> NDArray[Any]:
        """The samples as frames x channels, a view of the message.

        `sample_type` is f32, f64, i16, i32 or u8.
        """
        flat = _as(self.data, _SAMPLES[sample_type])
        return flat.reshape(-1, self.channels)


def audio_frame(
    samples: NDArray[Any],
    sample_rate: int,
) -> pa.StructArray:
    """Build one `std/media/v1/AudioFrame` of an array of frames (x channels).

    The array's memory is shared if it is contiguous.
    """
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples are frames x channels, not {samples.shape}")
    return _struct(
        AudioFrame.TYPE,
        sample_rate,
        samples.shape[1] if samples.ndim == 2 else 1,
        samples,
    )


class BoundingBox(Reader):
    """`std/vision/v1/BoundingBox`: a rectangle in a picture, with what is in it."""

    __slots__ = ()
    URN: ClassVar[str] = "std/vision/v1/BoundingBox"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("x", pa.float32()),
            pa.field("y", pa.float32()),
            pa.field("width", pa.float32()),
            pa.field("height", pa.float32()),
            pa.field("confidence", pa.float32()),
            pa.field("label", pa.string()),
        ]
    )

    @property
    def x(self) -> float:
        """The field `x`."""
        return _float(*self._at("x"))

    @property
    def y(self) -> float:
        """The field `y`."""
        return _float(*self._at("y"))

    @property
    def width(self) -> float:
        """The field `width`."""
        return _float(*self._at("width"))

    @property
    def height(self) -> float:
        """The field `height`."""
        return _float(*self._at("height"))

    @property
    def confidence(self) -> float:
        """The field `confidence`."""
        return _float(*self._at("confidence"))

    @property
    def label(self) -> str:
        """The field `label`."""
        return _text(*self._at("label"))


def bounding_box(
    x: float,
    y: float,
    width: float,
    height: float,
    confidence: float,
    label: str,
) -> pa.StructArray:
    """Build one `std/vision/v1/BoundingBox`."""
    return _struct(
        BoundingBox.TYPE,
        x,
        y,
        width,
        height,
        confidence,
        label,
    )


class Detection(Reader):
    """`std/vision/v1/Detection`: what was found in a picture."""

    __slots__ = ()
    URN: ClassVar[str] = "std/vision/v1/Detection"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("boxes", pa.large_list(BoundingBox.TYPE)),
        ]
    )

    @property
    def boxes(self) -> list[BoundingBox]:
        """The field `boxes`."""
        return _items(*self._at("boxes"), BoundingBox)


def detection(
    boxes: Iterable[BoundingBox | pa.StructArray],
) -> pa.StructArray:
    """Build one `std/vision/v1/Detection`."""
    return _struct(
        Detection.TYPE,
        boxes,
    )


class Segmentation(Reader):
    """`std/vision/v1/Segmentation`: the class of each pixel of a picture."""

    __slots__ = ()
    URN: ClassVar[str] = "std/vision/v1/Segmentation"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("width", pa.uint32()),
            pa.field("height", pa.uint32()),
            pa.field("num_classes", pa.uint32()),
            pa.field("mask", pa.large_binary()),
            pa.field("class_names", pa.large_list(pa.string())),
        ]
    )

    @property
    def width(self) -> int:
        """The field `width`."""
        return _int(*self._at("width"))

    @property
    def height(self) -> int:
        """The field `height`."""
        return _int(*self._at("height"))

    @property
    def num_classes(self) -> int:
        """The field `num_classes`."""
        return _int(*self._at("num_classes"))

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The field `mask`."""
        return _bytes(*self._at("mask"))

    @property
    def class_names(self) -> list[str]:
        """The field `class_names`."""
        return _items(*self._at("class_names"), _text)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The class of each pixel as height x width, a view of the message."""
        return self.mask.reshape(self.height, self.width)


def segmentation(
    mask: NDArray[np.uint8],
    class_names: Iterable[str],
    num_classes: int | None = None,
) -> pa.StructArray:
    """Build one `std/vision/v1/Segmentation` of an array of height x width class numbers.

    There are as many classes as names, unless given. The array's memory is shared if it
    is contiguous.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"a mask is height x width of uint8, not {mask.shape}")
    names = list(class_names)
    return _struct(
        Segmentation.TYPE,
        mask.shape[1],
        mask.shape[0],
        len(names) if num_classes is None else num_classes,
        mask,
        names,
    )


class Spot(Reader):
    """`lab/tracking/v1/Spot`: a bright spot in a picture."""

    __slots__ = ()
    URN: ClassVar[str] = "lab/tracking/v1/Spot"
    TYPE: ClassVar[pa.DataType] = pa.struct(
        [
            pa.field("centre", Vector3.TYPE),
            pa.field("brightness", pa.uint8()),
            pa.field("track", pa.large_list(pa.float64())),
            pa.field("label", pa.string(), nullable=False),
        ]
    )

    @property
    def centre(self) -> Vector3:
        """The field `centre`."""
        return Vector3(*self._at("centre"))

    @property
    def brightness(self) -> int:
        """The field `brightness`."""
        return _int(*self._at("brightness"))

    @property
    def track(self) -> NDArray[np.float64]:
        """The field `track`."""
        return _vector(*self._at("track"), np.float64)

    @property
    def label(self) -> str:
        """The field `label`."""
        return _text(*self._at("label"))


def spot(
    centre: Vector3 | pa.StructArray,
    brightness: int,
    track: ArrayLike,
    label: str,
) -> pa.StructArray:
    """Build one `lab/tracking/v1/Spot`."""
    return _struct(
        Spot.TYPE,
        centre,
        brightness,
        track,
        label,
    )
