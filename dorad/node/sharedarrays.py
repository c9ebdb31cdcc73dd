"""numpy arrays allocated in shared memory, which are sent without a copy."""

from __future__ import annotations

import functools
import math
import operator
import weakref
from typing import TYPE_CHECKING, Any, SupportsIndex

from dorad.shm import native
from dorad.shm.steps import twin

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa
    from numpy.typing import DTypeLike, NDArray

    from dorad.shm.nested import Encoded
    from dorad.shm.pool import Pool, Sample

_DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
]


@twin
class SharedArray:
    """An array from `node.empty`, with its sample and its encoding; `array` refers to it weakly.

    Every numpy or pyarrow view keeps the array alive. So when it dies, the node itself no longer
    uses the sample: this object gives it back, and removes itself from `known`.
    """

    __slots__ = ("_keys", "_known", "_returned", "address", "array", "encoded", "sample")

    def __init__(
        self,
        array: NDArray[Any],
        sample: Sample,
        address: int,
        encoding: tuple[int, int, int],
        known: dict[int, SharedArray],
        returned: list[Sample],
    ) -> None:
        """Join `known`. `encoding` is the type code, length and size in bytes of the array."""
        code, length, size = encoding
        self.array = weakref.ref(array, self)
        self.sample = sample
        self.address = address
        self.encoded: Encoded = (code, length, 0, size, ())
        self._known = known
        self._returned = returned
        self._keys = (id(array), address)
        for key in self._keys:
            known[key] = self

    def __call__(self, _: weakref.ref[NDArray[Any]]) -> None:
        """Give the sample back, because the array has died."""
        for key in self._keys:
            del self._known[key]
        self._returned.append(self.sample)

    def freeze(self) -> None:
        """Make the array read-only, because receivers read it from now on."""
        array = self.array()
        if array is not None:
            array.setflags(write=False)


@twin
class SharedArraysState:
    """The arrays in the node's samples."""

    __slots__ = ("_known",)


class SharedArrays(SharedArraysState):
    """The arrays in the node's samples, found by identity or by address."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[int, SharedArray] = {}
        """By `id` and by address: both are places in this process's memory, so none are alike."""

    def __bool__(self) -> bool:
        return bool(self._known)

    def empty(
        self, shape: SupportsIndex | Iterable[SupportsIndex], dtype: DTypeLike
    ) -> NDArray[Any]:
        """Return an uninitialised C-ordered array in shared memory.

        Raises:
            ValueError: no Arrow type has the memory layout of the dtype, or the shape is negative.
            TypeError: the shape is neither an integer nor a sequence of integers.
            RuntimeError: /dev/shm is full.
        """
        np, kinds = _load()
        kind = np.dtype(dtype)
        if kind not in kinds:
            raise ValueError(
                f"node.empty() makes native integer and float arrays, not {kind}; "
                "view such an array for anything else"
            )
        _, code, width = kinds[kind]
        extent = _extent(shape)
        length = math.prod(extent)
        size = length * width
        try:
            sample = self._pool.take(max(size, 1))
        except OSError as error:
            raise RuntimeError(f"an array of {size} bytes cannot be allocated: {error}") from error
        mapping = sample.segment.mapping
        try:
            array: NDArray[Any] = np.ndarray(extent, kind, mapping.memory, sample.offset)
        except BaseException:
            self._pool.sent(sample, [])
            raise
        sample.held = 1
        address = mapping.address() + sample.offset
        SharedArray(array, sample, address, (code, length, size), self._known, self._pool.returned)
        return array

    def find(self, data: Any) -> tuple[SharedArray | None, Encoded] | None:
        """Return the shared array that `data` is, or views from its start, and the encoding.

        The array is None if a message of the view's type has other bytes, so that it must be
        copied. Return None if `data` is not in a shared array, or its type cannot be sent.
        """
        shared = self._known.get(id(data))
        if shared is not None and shared.array() is data:
            return shared, shared.encoded
        import pyarrow as pa

        from dorad.shm import arrow

        if isinstance(data, pa.Array):
            buffers = data.buffers()
            if len(buffers) != 2 or buffers[1] is None or data.offset or data.null_count:
                return None
            shared = self._known.get(buffers[1].address)
            return None if shared is None else _in_place(shared, arrow.encode(data))
        interface = getattr(data, "__array_interface__", None)
        if interface is None or not data.flags.c_contiguous:
            return None
        shared = self._known.get(interface["data"][0])
        if shared is None:
            return None
        try:
            array = flat(data)
        except pa.ArrowException:
            return None
        return _in_place(shared, arrow.encode(array))


def _in_place(shared: SharedArray, encoded: Encoded) -> tuple[SharedArray | None, Encoded]:
    """Return the array with the encoding of its view, if the payload is the array's own bytes."""
    parts = encoded[4]
    if len(parts) == 1 and getattr(parts[0][1], "address", None) == shared.address:
        return shared, encoded
    return None, encoded


@functools.cache
def _load() -> tuple[Any, dict[Any, tuple[Any, int, int]]]:
    """Import numpy and Arrow at the first array.

    Return numpy, and by their usual names the dtypes, with type code and bytes of one item.
    """
    import numpy as np

    from dorad.shm import arrow

    kinds = {}
    for name in _DTYPES:
        kind = np.dtype(name)
        known_as = (name, kind, kind.type)
        kinds.update(dict.fromkeys(known_as, (kind, arrow.code_of(kind), kind.itemsize)))
    if native.module is not None:
        native.module.use_numpy(np.ndarray, kinds)
    return np, kinds


def _extent(shape: Any) -> tuple[int, ...]:
    """Return a shape as plain integers. numpy would derive a -1 from the size of the segment."""
    extent: tuple[int, ...]
    if type(shape) is int and shape >= 0:
        return (shape,)
    try:
        extent = (operator.index(shape),)
    except TypeError:
        extent = tuple(map(operator.index, shape))
    if any(length < 0 for length in extent):
        raise ValueError(f"negative dimensions are not allowed: {extent}")
    return extent


def flat(data: NDArray[Any] | pa.Array) -> pa.Array:
    """Return an array as an Arrow array over the same memory, in C order."""
    import pyarrow as pa

    return data if isinstance(data, pa.Array) else pa.array(data.reshape(-1))
