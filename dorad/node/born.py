"""Arrays born in shared memory: numpy arrays that are sent without a copy."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

    from dorad.shm.pool import Pool, Sample


class _Holder:
    """What a born array's memory belongs to, as numpy sees it.

    Every view of the array keeps it alive, so its end is the end of the node's own use.
    """

    __slots__ = ("__array_interface__", "_pool", "sample")

    def __init__(self, pool: Pool, sample: Sample, interface: dict[str, Any]) -> None:
        self._pool = pool
        self.sample = sample
        self.__array_interface__ = interface

    def __del__(self) -> None:
        self._pool.give_back(self.sample)


class BornArrays:
    """The arrays that live in the node's samples, found again by their address."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.arrays: dict[int, tuple[Sample, weakref.ref[NDArray[Any]]]] = {}

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised C-ordered array in shared memory.

        Raises:
            ValueError: the dtype has no Arrow type of the same bytes.
            RuntimeError: /dev/shm is full.
        """
        import numpy as np

        kind = np.dtype(dtype)
        if kind.kind not in "iuf" or not kind.isnative or kind.itemsize > 8:
            raise ValueError(
                f"node.empty() makes native integer and float arrays, not {kind}; "
                "view such an array for anything else"
            )
        extent = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        size = math.prod(extent) * kind.itemsize
        try:
            sample = self._pool.take(max(size, 1))
        except OSError as error:
            raise RuntimeError(f"an array of {size} bytes cannot be made: {error}") from error
        sample.held = True
        address = sample.segment.mapping.address() + sample.offset
        interface = {"version": 3, "shape": extent, "typestr": kind.str, "data": (address, False)}
        array = np.asarray(_Holder(self._pool, sample, interface))
        self.arrays[address] = (sample, weakref.ref(array, self._forget(address)))
        return array

    def _forget(self, address: int) -> Callable[[weakref.ref[Any]], None]:
        arrays = self.arrays

        def gone(reference: weakref.ref[Any]) -> None:
            found = arrays.get(address)
            if found is not None and found[1] is reference:
                del arrays[address]

        return gone

    def find(self, data: Any) -> Sample | None:
        """Return the sample of data that is, or wraps, all of a born array."""
        import pyarrow as pa

        if isinstance(data, pa.Array):
            buffers = data.buffers()
            if len(buffers) != 2 or buffers[1] is None or data.offset or data.null_count:
                return None
            found = self.arrays.get(buffers[1].address)
        else:
            interface = getattr(data, "__array_interface__", None)
            if interface is None or not data.flags.c_contiguous:
                return None
            found = self.arrays.get(interface["data"][0])
        return None if found is None else found[0]

    @staticmethod
    def as_array(data: Any) -> Any:
        """Return what `find` has found as an Arrow array over the same memory, flattened."""
        import pyarrow as pa

        return data if isinstance(data, pa.Array) else pa.array(data.reshape(-1))

    def sent(self, sample: Sample) -> None:
        """Forbid writing through the array from now on: receivers are reading it."""
        for other, reference in list(self.arrays.values()):
            array = reference()
            if other is sample and array is not None:
                array.flags.writeable = False
