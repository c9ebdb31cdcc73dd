"""One table of an export: the messages of one topic whose arrays have one type.

Every writer takes one message after another, and keeps only a few megabytes of them. A message that
it cannot hold raises ValueError and changes nothing; an error of Arrow ends the whole table.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from dorad.control.arrayvalues import python_size, to_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "csv": ".csv"}

BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20
"""Memory that writing some messages at once may take. Parquet keeps it until its file is closed."""

MAX_COST = 320 << 20
"""Memory that writing one message may take, or twice as much as the message itself."""

_LARGE = 1 << 20
"""Bytes of a first message from which on a table is not compressed: that takes memory, too."""

MAX_CELL = 1 << 17
"""Characters of a cell of CSV: the longest that Python's own reader takes."""

_SLICE = 1 << 17
"""Values of a large array that become rows, or text, at once."""
_TEXT_BYTES = 16 << 20
"""Memory of the Python objects that become text at once."""
_MAX_OFFSET = (1 << 31) - 1
_BYTE_TEXTS = np.array([f"{value}, " for value in range(256)], "S")


class Row(NamedTuple):
    """What a table says of a message beside its values; time in ns since 1970."""

    time: int
    sequence: int
    metadata: str
    """As JSON."""


def column_type(kind: str, array: pa.Array, *, by_value: bool) -> pa.DataType:
    """Return the type of the column `data` for an array in a table of this kind.

    Parquet's lists take ten times the memory of bytes, so pictures are binaries there.
    """
    if by_value:
        return array.type
    if kind == "parquet" and array.type == pa.uint8() and not array.null_count:
        return pa.binary()
    return pa.list_(array.type)


class ColumnTable:
    """A Parquet or Arrow file."""

    def __init__(self, path: Path, kind: str, first: pa.Array, *, by_value: bool) -> None:
        """Create the file for arrays like the `first` one.

        Raises:
            pa.ArrowException: the format does not know the type.
            OSError: the file cannot be created.
        """
        self.path = path
        self.rows = 0
        self.pending_bytes = 0
        """Memory that the messages take which are not yet written."""
        self._parquet = kind == "parquet"
        self._by_value = by_value
        column = self._column = column_type(kind, first, by_value=by_value)
        self._pending: list[tuple[Row, pa.Array]] = []
        self._schema = pa.schema(
            [
                ("time", pa.timestamp("ns", "UTC")),
                ("sequence", pa.int64()),
                ("metadata", pa.string()),
                ("data", column),
            ]
        )
        self._writer = self._open(large=first.nbytes >= _LARGE)

    def add(self, row: Row, array: pa.Array) -> None:
        """Add a message.

        Raises:
            ValueError: the format would need far more memory than the message has bytes.
            pa.ArrowException, OSError: earlier messages cannot be written.
        """
        if not self._by_value:
            self._check(array)
            self._add(row, array)
            return
        if python_size(array[:1]) > MAX_COST:
            raise ValueError(f"a value of {array.type} is too large for a row")
        for at in range(0, len(array), _SLICE):
            self._add(row, array[at : at + _SLICE])

    def flush(self) -> None:
        """Write what is pending. Raises pa.ArrowException and OSError."""
        pending, self._pending, self.pending_bytes = self._pending, [], 0
        if not pending:
            return
        lengths = np.fromiter((len(array) for _, array in pending), np.int64, len(pending))
        arrays = [array for _, array in pending]
        values = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
        del arrays
        times = np.array([row.time for row, _ in pending], np.int64)
        sequences = np.array([row.sequence for row, _ in pending], np.int64)
        texts = pa.array([row.metadata for row, _ in pending], pa.string())
        if self._by_value:
            at = np.repeat(np.arange(len(pending)), lengths)
            times, sequences, texts, data = times[at], sequences[at], texts.take(at), values
        else:
            data = self._lists(values, lengths)
        columns = [
            pa.array(times).view(self._schema.field(0).type),
            pa.array(sequences),
            texts,
            data,
        ]
        del pending, values, data
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self.rows += len(times)

    def close(self) -> None:
        """Write the rest, and close the file. Raises pa.ArrowException and OSError."""
        try:
            self.flush()
        finally:
            self._writer.close()

    def abandon(self) -> None:
        """Close the file, and remove it."""
        self._pending.clear()
        with contextlib.suppress(pa.ArrowException):
            self._writer.close()
        self.path.unlink()

    def _add(self, row: Row, array: pa.Array) -> None:
        self._pending.append((row, array))
        self.pending_bytes += self.cost(array)
        if self.pending_bytes >= BATCH_BYTES or len(self._pending) >= BATCH_ROWS:
            self.flush()

    def _check(self, array: pa.Array) -> None:
        if len(array) > _MAX_OFFSET:
            raise ValueError(f"{len(array)} values are too many for a list")
        cost = self.cost(array)
        if cost > max(MAX_COST, 2 * array.nbytes):
            raise ValueError(f"{len(array)} values of {array.type} take {cost >> 20} MiB of memory")

    def cost(self, array: pa.Array) -> int:
        """Return about how much memory writing an array takes, beside its own."""
        size = int(array.nbytes)
        if not self._parquet:
            return size
        if self._column == pa.binary():
            return 2 * size
        # Of each value the place in its lists, and its page in three forms; below 4 bytes it is an
        # integer of 4.
        narrow = pa.types.is_primitive(array.type) and array.type.bit_width < 32
        leaves = leaf_count(array)
        return 7 * leaves + 3 * (4 * leaves if narrow else size)

    def _lists(self, values: pa.Array, lengths: np.ndarray[Any, Any]) -> pa.Array:
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        if self._column != pa.binary():
            return pa.ListArray.from_arrays(pa.array(offsets), values)
        # The same bytes, without a copy.
        buffers = [None, pa.py_buffer(offsets + values.offset), values.buffers()[1]]
        return pa.Array.from_buffers(pa.binary(), len(lengths), buffers)

    def _open(self, *, large: bool) -> Any:
        if not self._parquet:
            return pa.ipc.new_file(str(self.path), self._schema)
        import pyarrow.parquet as pq

        # Statistics and dictionaries of payloads cost memory and help no reader.
        named = ["time", "sequence", "metadata"]
        return pq.ParquetWriter(
            self.path,
            self._schema,
            use_dictionary=["metadata"],
            write_statistics=named,
            compression="NONE" if large else "SNAPPY",
        )


def leaf_count(array: pa.Array) -> int:
    """Return how many values an array has, with those of its lists and members."""
    t, kind = pa.types, array.type
    if isinstance(array, pa.ExtensionArray):
        return leaf_count(array.storage)
    if t.is_struct(kind):
        return sum(map(leaf_count, array.flatten()), len(array))
    if t.is_map(kind):
        return len(array) + leaf_count(array.keys) + leaf_count(array.items)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return len(array) + leaf_count(array.flatten())
    return len(array)


class CsvTable:
    """A CSV file, whose values are JSON."""

    pending_bytes = 0

    def cost(self, _array: pa.Array) -> int:
        """Return 0: any array is written a part at a time."""
        return 0

    def __init__(self, path: Path, *, by_value: bool, large_cells: bool) -> None:
        """Create the file. Raises OSError."""
        self.path = path
        self.rows = 0
        self._by_value = by_value
        self._large_cells = large_cells
        self._file = path.open("wb", buffering=1 << 20)
        self._file.write(b'"time","sequence","metadata","data"\n')

    def add(self, row: Row, array: pa.Array) -> None:
        """Add a message.

        Raises:
            ValueError: one of its values cannot be text, or is too large for it.
            OSError: the file cannot be written.
        """
        begin = self._file.tell()
        head = f'{_time_text(row.time)},{row.sequence},"{_escaped(row.metadata)}",'
        try:
            count = self._write_values(head, array) if self._by_value else self._write(head, array)
        except ValueError:
            self._file.seek(begin)
            self._file.truncate()
            raise
        self.rows += count

    def flush(self) -> None:
        """Do nothing: no message is pending."""

    def close(self) -> None:
        """Close the file. Raises OSError."""
        self._file.close()

    def abandon(self) -> None:
        """Close the file, and remove it."""
        self._file.close()
        self.path.unlink()

    def _write(self, head: str, array: pa.Array) -> int:
        # Of a large array no text is made: it has two characters for each value at least.
        self._check(max(2 * leaf_count(array), _least_text(array)))
        between, size = f'{head}"[', 0
        for text in joined_texts(array):
            size += len(text) + 2
            self._check(size)
            self._file.write((between + _escaped(text)).encode())
            between = ", "
        # An empty array has no text.
        self._file.write(b']"\n' if between == ", " else f'{head}"[]"\n'.encode())
        return 1

    def _write_values(self, head: str, array: pa.Array) -> int:
        if _is_plain(array):
            between = f'"\n{head}"'
            for text in joined_texts(array):
                self._file.write(f'{head}"{text.replace(", ", between)}"\n'.encode())
            return len(array)
        for part in _parts(array):
            self._check(_least_text(part) // len(part))
            texts = [_as_text(value) for value in to_python(part)]
            self._check(max(map(len, texts)))
            self._file.write("".join(f'{head}"{_escaped(text)}"\n' for text in texts).encode())
        return len(array)

    def _check(self, size: int) -> None:
        if size > MAX_CELL and not self._large_cells:
            raise ValueError(
                f"text of more than {MAX_CELL >> 10} KiB in a cell; --large-cells writes it"
            )


def _least_text(array: pa.Array) -> int:
    """Return how many characters the text has at least: one takes 64 bytes as objects at most."""
    return python_size(array) // 64


def joined_texts(array: pa.Array) -> Iterator[str]:
    """Yield the values of an array as JSON, separated by `, `, some at a time.

    Raises:
        ValueError: one cannot be text, or is too large for it.
    """
    if _is_plain(array):
        for at in range(0, len(array), _SLICE):
            yield _integers(array[at : at + _SLICE])  # pictures: many times as fast
        return
    for part in _parts(array):
        yield json.dumps(to_python(part), default=str)[1:-1]


def _is_plain(array: pa.Array) -> bool:
    return pa.types.is_integer(array.type) and not array.null_count


def _integers(array: pa.Array) -> str:
    if array.type == pa.uint8():
        spaced: bytes = _BYTE_TEXTS[array.to_numpy()].tobytes()
        return spaced.translate(None, b"\0")[:-2].decode()
    import pyarrow.compute as pc  # takes memory that large messages need

    texts = array.cast(pa.string())
    ends = pa.array([0, len(texts)], pa.int32())
    joined: str = pc.binary_join(pa.ListArray.from_arrays(ends, texts), ", ")[0].as_py()
    return joined


def _parts(array: pa.Array) -> list[pa.Array]:
    """Return slices of an array whose values are small enough to be Python objects.

    Raises:
        ValueError: a single value is not.
    """
    size = python_size(array)
    if size <= _TEXT_BYTES:
        return [array] if len(array) else []
    if len(array) > 1:
        middle = len(array) // 2
        return [*_parts(array[:middle]), *_parts(array[middle:])]
    if size > MAX_COST:
        raise ValueError(f"a value of {array.type} takes {size >> 20} MiB as text")
    return [array]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _escaped(text: str) -> str:
    return text.replace('"', '""')


def _time_text(time: int) -> str:
    return f"{np.datetime64(time, 'ns')}Z".replace("T", " ")
