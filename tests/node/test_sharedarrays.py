"""Arrays in shared memory: recognised when sent, then read-only, their memory reused."""

import gc
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dorad.node.sharedarrays import SharedArrays, flat
from dorad.shm.arrow import decode
from dorad.shm.mapping import Mapping
from dorad.shm.pool import Pool
from tests.harness.dataflow import Flow


class Bed:
    """Shared arrays whose segments are real ones."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.grown = 0

        def grow(size: int) -> tuple[int, Mapping]:
            self.grown += 1
            descriptor = os.memfd_create("test")
            os.ftruncate(descriptor, size)
            try:
                return next(numbers), Mapping(descriptor)
            finally:
                os.close(descriptor)

        self.pool = Pool(grow, lambda _: None)
        self.shared_arrays = SharedArrays(self.pool)

    def finds(self, data: Any) -> bool:
        found = self.shared_arrays.find(data)
        return found is not None and found[0] is not None


@pytest.fixture
def bed() -> Iterator[Bed]:
    bed = Bed()
    yield bed
    # pytest itself holds the bed for longer than its test.
    vars(bed).clear()


@pytest.mark.parametrize(
    "dtype",
    [
        *["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"],
        *["float16", "float32", "float64"],
    ],
)
def test_arrays_of_native_numbers_can_be_created(bed: Bed, dtype: str) -> None:
    array = bed.shared_arrays.empty((3, 4), dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((3, 4), np.dtype(dtype), True)
    array[:] = 5
    found = bed.shared_arrays.find(array)
    assert found is not None
    assert found[0].sample.segment.mapping.size >= array.nbytes


@pytest.mark.parametrize(
    "dtype", ["bool", "complex64", "U4", "O", ">i4", "datetime64[ns]", "i4,f4"]
)
def test_other_types_are_refused_with_their_name(bed: Bed, dtype: str) -> None:
    with pytest.raises(ValueError, match="native integer and float"):
        bed.shared_arrays.empty(3, dtype)


@pytest.mark.parametrize(
    ("shape", "expected"), [(5, (5,)), ((2, 3), (2, 3)), ((), ()), (0, (0,)), ((3, 0), (3, 0))]
)
def test_shapes_are_those_of_numpy(bed: Bed, shape: Any, expected: tuple[int, ...]) -> None:
    assert bed.shared_arrays.empty(shape, "uint8").shape == expected


@pytest.mark.parametrize("shape", [np.int64(3), (np.int32(3),), [3], iter([3])])
def test_shapes_may_be_numpys_own_integers(bed: Bed, shape: Any) -> None:
    assert bed.shared_arrays.empty(shape, "uint8").shape == (3,)


@pytest.mark.parametrize(
    ("shape", "error"),
    [(-1, ValueError), ((2, -1), ValueError), (1.5, TypeError), ((2.0,), TypeError)],
)
def test_an_invalid_shape_is_refused(bed: Bed, shape: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        bed.shared_arrays.empty(shape, "uint8")


def test_a_shape_that_numpy_refuses_costs_no_memory(bed: Bed) -> None:
    bed.shared_arrays.empty(1_000_000, "uint8")
    for _ in range(5):
        with pytest.raises(ValueError, match="dimension"):
            bed.shared_arrays.empty((1,) * 64 + (1_000_000,), "uint8")
    assert bed.grown == 1


def test_the_array_itself_is_found(bed: Bed) -> None:
    array = bed.shared_arrays.empty((10, 10), "float32")
    array[:] = np.arange(100).reshape(10, 10)
    found = bed.shared_arrays.find(array)
    assert found is not None
    _, (_, length, nulls, size, parts) = found
    assert (length, nulls, size, parts) == (100, 0, 400, ())
    assert flat(array).to_pylist() == list(range(100))


def test_views_from_its_start_are_found(bed: Bed) -> None:
    array = bed.shared_arrays.empty((10, 10), "uint8")
    for view in (array[:], array.reshape(-1), array.view("int8"), np.asarray(array), array[:5]):
        assert bed.finds(view)


def test_an_arrow_array_over_it_is_found(bed: Bed) -> None:
    array = bed.shared_arrays.empty(100, "uint8")
    assert bed.finds(pa.array(array))
    assert bed.finds(pa.array(array)[:50])


@pytest.mark.parametrize(
    "derive",
    [
        lambda array: array.view(bool),
        lambda array: array.view("datetime64[ns]"),
        lambda array: array.view("S4"),
        lambda array: pa.array(array.view("int64")).view(pa.timestamp("ns")),
        lambda array: pa.Array.from_buffers(pa.binary(8), 9, [None, pa.array(array).buffers()[1]]),
        lambda array: pa.DictionaryArray.from_arrays(pa.array(array), pa.array(["a", "b"])),
    ],
)
def test_a_view_of_a_type_with_other_bytes_is_copied(bed: Bed, derive: Any) -> None:
    array = bed.shared_arrays.empty(80, "uint8")
    array[:] = np.arange(80) % 2
    view = derive(array)
    found = bed.shared_arrays.find(view)
    assert found is not None
    shared_arrays, (code, length, nulls, size, parts) = found
    assert shared_arrays is None
    payload = bytearray(size)
    for at, part in parts:
        payload[at : at + len(part)] = part
    assert decode(code, length, nulls, pa.py_buffer(bytes(payload))).equals(flat(view))


@pytest.mark.parametrize("dtype", [">i4", "complex64", "i4,f4"])
def test_a_view_of_a_type_that_arrow_lacks_is_not_found(bed: Bed, dtype: str) -> None:
    assert not bed.finds(bed.shared_arrays.empty(80, "uint8").view(dtype))


def test_other_memory_is_not_found(bed: Bed) -> None:
    array = bed.shared_arrays.empty((10, 10), "uint8")
    others: list[Any] = [
        np.zeros(100, "uint8"),
        array.copy(),
        array.T,
        array[:, ::2],
        array[1:],
        pa.array(array.reshape(-1))[1:],
        pa.array([1, None]),
        pa.array(["text"]),
        pa.nulls(3),
        b"bytes",
        [1, 2],
        None,
    ]
    for other in others:
        assert not bed.finds(other), other


def test_freezing_forbids_writing_through_the_array_and_later_views(bed: Bed) -> None:
    array = bed.shared_arrays.empty(10, "uint8")
    array[:] = 1
    found = bed.shared_arrays.find(array)
    assert found is not None
    found[0].freeze()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    with pytest.raises(ValueError, match="read-only"):
        array[:5][0] = 2
    assert array.tolist() == [1] * 10


def test_memory_is_reused_after_the_array_is_deleted(bed: Bed) -> None:
    for _ in range(200):
        bed.shared_arrays.empty(1_000_000, "uint8")[:] = 1
    assert bed.grown == 1


@pytest.mark.parametrize(
    "derive",
    [
        lambda array: array[5:],
        lambda array: array.reshape(10, 10)[2:][1],
        lambda array: pa.array(array),
        lambda array: pa.array(array)[3:],
        lambda array: memoryview(array),
        lambda array: array.view("int8"),
        lambda array: np.frombuffer(array, "uint16"),
    ],
    ids=["slice", "nested", "arrow", "arrow-slice", "memoryview", "view", "frombuffer"],
)
def test_every_view_keeps_the_memory_alive(bed: Bed, derive: Any) -> None:
    array = bed.shared_arrays.empty(100, "uint8")
    array[:] = np.arange(100)
    derived = derive(array)
    before = (
        bytes(memoryview(derived)) if not isinstance(derived, pa.Array) else derived.to_pylist()
    )
    del array
    gc.collect()
    for _ in range(1000):
        bed.shared_arrays.empty(100, "uint8")[:] = 255
    after = bytes(memoryview(derived)) if not isinstance(derived, pa.Array) else derived.to_pylist()
    assert after == before


def test_a_new_array_at_the_address_of_an_old_one_is_distinct(bed: Bed) -> None:
    for length in range(100, 200):
        array = bed.shared_arrays.empty(length, "uint8")
        found = bed.shared_arrays.find(array)
        assert found is not None
        assert found[1][1] == length
        del array, found
    assert not bed.shared_arrays


def test_a_full_pool_is_an_error_with_the_requested_size() -> None:
    def full(size: int) -> tuple[int, Mapping]:
        raise OSError(f"/dev/shm is full: {size} bytes requested, 0 free")

    with pytest.raises(RuntimeError, match="1000000 bytes cannot be allocated: /dev/shm is full"):
        SharedArrays(Pool(full, lambda _: None)).empty(1_000_000, "uint8")


def test_sent_arrays_arrive_and_their_memory_is_reused(flow: Flow) -> None:
    flow.node(
        "sender",
        """
        import numpy as np
        from dora import Node
        from probe import report

        node = Node()
        addresses = set()
        for number in range(100):
            array = node.empty((500, 1000), "uint8")
            addresses.add(array.__array_interface__["data"][0])
            array[:] = number
            node.send_output("out", array, {"number": number})
            refused = False
            try:
                array[0] = 1
            except ValueError:
                refused = True
            assert refused
            del array
            node.next()
        report(len(addresses))
        """,
        inputs={"done": "sink/done"},
        outputs=["out"],
    )
    flow.node(
        "sink",
        """
        import numpy as np
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        right = 0
        for event in node:
            if event["type"] == "INPUT":
                value = event["value"].to_numpy()
                same = (value == event["metadata"]["number"]).all()
                right += len(value) == 500_000 and bool(same)
                value = event = None
                node.send_output("done", pa.array([1]))
        report(right)
        """,
        inputs={"in": "sender/out"},
        outputs=["done"],
    )
    flow.run().expect(0)
    assert flow.reports("sink") == [100]
    (addresses,) = flow.reports("sender")
    assert addresses <= 4
