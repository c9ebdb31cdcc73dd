"""numpy arrays allocated in shared memory, which are sent without a copy."""

from __future__ import annotations

import functools
import math
import operator
import weakref
from typing import TYPE_CHECKING, Any, SupportsIndex

from dorad.shm.steps import twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa
    from numpy.typing import DTypeLike, NDArray

    from dorad.shm.arrow import Encoded
    from dorad.shm.pool import Pool, Sample


class SharedArray(weakref.ref["NDArray[Any]"]):
    """A weak reference to a shared array, with its sample, address and encoding.

    Every numpy or pyarrow view keeps the array alive. So when this reference dies, the node itself
    no longer uses the sample.
    """

    __slots__ = ("address", "encoded", "identity", "sample")

    sample: Sample
    address: int
    identity: int
    encoded: Encoded

    def freeze(self) -> None:
        """Make the array read-only, because receivers read it from now on."""
        array = self()
        if array is not None:
            array.flags.writeable = False


@twin
class SharedArraysState:
    """The arrays by identity and by address."""

    __slots__ = ("_by_address", "_by_id")


class SharedArrays(SharedArraysState):
    """The arrays in the node's samples, found by identity or by address."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._by_id: dict[int, SharedArray] = {}
        self._by_address: dict[int, SharedArray] = {}

    def __bool__(self) -> bool:
        return bool(self._by_address)

    def empty(
        self, shape: SupportsIndex | Iterable[SupportsIndex], dtype: DTypeLike
    ) -> NDArray[Any]:
        """Return an uninitialised C-ordered array in shared memory.

        Raises:
            ValueError: no Arrow type has the memory layout of the dtype, or the shape is negative.
            TypeError: the shape is neither an integer nor a sequence of integers.
            RuntimeError: /dev/shm is full.
        """
        np, code_of = _load()
        kind = np.dtype(dtype)
        if kind.kind not in "iuf" or not kind.isnative or kind.itemsize > 8:
            raise ValueError(
                f"node.empty() makes native integer and float arrays, not {kind}; "
                "view such an array for anything else"
            )
        extent = _extent(shape)
        length = math.prod(extent)
        size = length * kind.itemsize
        try:
            sample = self._pool.take(max(size, 1))
        except OSError as error:
            raise RuntimeError(f"an array of {size} bytes cannot be allocated: {error}") from error
        sample.held = 1
        mapping = sample.segment.mapping
        array: NDArray[Any] = np.ndarray(extent, kind, mapping.memory, sample.offset)
        shared_arrays = SharedArray(array, self._release)
        shared_arrays.sample = sample
        shared_arrays.address = mapping.address() + sample.offset
        shared_arrays.encoded = (code_of(kind), length, 0, size, ())
        shared_arrays.identity = id(array)
        self._by_id[shared_arrays.identity] = self._by_address[shared_arrays.address] = (
            shared_arrays
        )
        return array

    def _release(self, shared_arrays: weakref.ref[NDArray[Any]]) -> None:
        if isinstance(shared_arrays, SharedArray):
            if self._by_address.get(shared_arrays.address) is shared_arrays:
                del self._by_address[shared_arrays.address]
            if self._by_id.get(shared_arrays.identity) is shared_arrays:
                del self._by_id[shared_arrays.identity]
            self._pool.give_back(shared_arrays.sample)

    def find(self, data: Any) -> tuple[SharedArray | None, Encoded] | None:
        """Return the shared array that `data` is, or views from its start, and the encoding.

        The array is None if a message of the view's type has other bytes, so that it must be
        copied. Return None if `data` is not in a shared array, or its type cannot be sent.
        """
        shared_arrays = self._by_id.get(id(data))
        if shared_arrays is not None and shared_arrays() is data:
            return shared_arrays, shared_arrays.encoded
        import pyarrow as pa

        from dorad.shm import arrow

        if isinstance(data, pa.Array):
            buffers = data.buffers()
            if len(buffers) != 2 or buffers[1] is None or data.offset or data.null_count:
                return None
            shared_arrays = self._by_address.get(buffers[1].address)
            return None if shared_arrays is None else _in_place(shared_arrays, arrow.encode(data))
        interface = getattr(data, "__array_interface__", None)
        if interface is None or not data.flags.c_contiguous:
            return None
        shared_arrays = self._by_address.get(interface["data"][0])
        if shared_arrays is None:
            return None
        try:
            array = flat(data)
        except pa.ArrowException:
            return None
        return _in_place(shared_arrays, arrow.encode(array))


def _in_place(shared_arrays: SharedArray, encoded: Encoded) -> tuple[SharedArray | None, Encoded]:
    """Return the array with the encoding of its view, if the payload is the array's own bytes."""
    parts = encoded[4]
    if len(parts) == 1 and getattr(parts[0][1], "address", None) == shared_arrays.address:
        return shared_arrays, encoded
    return None, encoded


@functools.cache
def _load() -> tuple[Any, Callable[[Any], int]]:
    """Import numpy and Arrow at the first array."""
    import numpy as np

    from dorad.shm import arrow

    return np, arrow.code_of


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
