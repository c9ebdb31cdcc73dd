"""Arrow arrays in binary frames of the control API: each is one Arrow IPC stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    import pyarrow as pa

    from dorad.control.messages import TopicHeader

_COLUMN = "data"


def to_ipc(array: pa.Array) -> memoryview:
    """Return an array as an Arrow IPC stream: one record batch with one column."""
    import pyarrow as pa

    batch = pa.record_batch([array], names=[_COLUMN])
    sink = pa.BufferOutputStream()
    any_length = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.ipc.new_stream(sink, batch.schema, options=any_length) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def from_ipc(data: bytes | memoryview) -> pa.Array | None:
    """Return the array in an IPC stream without copying it, or None for a message without data.

    Raises:
        pyarrow.ArrowInvalid: the bytes are not an IPC stream.
    """
    import pyarrow as pa

    if not len(data):
        return None
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        column = reader.read_all().column(0)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def to_message(event: tuple[TopicHeader, memoryview]) -> tuple[TopicHeader, pa.Array | None]:
    """Return the header of a binary frame, and its data as an array.

    Raises:
        ControlError: the data are not an Arrow array.
    """
    import pyarrow as pa

    header, data = event
    try:
        array = from_ipc(data)
        if array is not None:
            array.validate(full=True)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise ControlError(
            "bad-request", f"a message of `{header.topic}` cannot be read: {error}"
        ) from None
    return header, array
