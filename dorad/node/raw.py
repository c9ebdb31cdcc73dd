"""`send_output_raw`: writable buffers in shared memory, filled in place and then sent."""

from __future__ import annotations

import copy
import functools
import operator
from typing import TYPE_CHECKING, Any, Literal

from dorad.node import metadata as metadata_codec
from dorad.node import samplebuffer

if TYPE_CHECKING:
    from dorad.node.sender import Sender

_LENGTHS = 1 << 64


class SampleHandler:
    """A buffer of `length` bytes that is sent once, as a UInt8 array.

    As a context manager it returns the buffer and sends it at the end of the block. If the block
    raises, the buffer is not sent, but can still be sent later. All views must be released before
    sending, because receivers read the buffer from then on. A view that outlives the handler stays
    valid.
    """

    __slots__ = (
        "_attachment",
        "_buffer",
        "_length",
        "_metadata",
        "_output",
        "_sample",
        "_sender",
        "_sent",
    )

    def __init__(
        self,
        attachment: object,
        sender: Sender,
        output: str,
        length: int,
        metadata: dict[str, Any] | None,
    ) -> None:
        """Take a sample. The handler keeps the node's `attachment` alive.

        Raises:
            TypeError: `length` is not an integer, or the metadata cannot be sent.
            OverflowError: `length` is negative, or does not fit into 64 bits.
            RuntimeError: a metadata key is not a string, or /dev/shm is full.
        """
        self._buffer: Any = None
        length = operator.index(length)
        if not 0 <= length < _LENGTHS:
            raise OverflowError(f"a buffer cannot be {length} bytes long")
        if metadata:
            metadata_codec.encode(metadata)
        self._attachment = attachment
        self._sender = sender
        self._output = output
        self._length = length
        self._metadata = copy.deepcopy(metadata)
        self._sample = sample = sender.take_sample(length)
        self._buffer = samplebuffer.begin(
            sample.segment.mapping.memory,
            sample.offset,
            length,
            functools.partial(sender.pool.give_back, sample),
        )
        self._sent = False

    def as_buffer(self) -> Any:
        """Return the buffer, always the same object, for `memoryview` and numpy to write to.

        After `send`, or after the end of this handler, new views raise BufferError.

        Raises:
            RuntimeError: the buffer was already sent.
        """
        if self._sent:
            raise RuntimeError("Cannot access buffer: the sample has already been sent")
        return self._buffer

    def as_memoryview(self) -> memoryview:
        """Return a new writable view of the buffer.

        Raises:
            RuntimeError: the buffer was already sent.
        """
        return memoryview(self.as_buffer())

    def send(self) -> None:
        """Send the buffer.

        Raises:
            RuntimeError: the buffer was already sent, or views of it are still open.
        """
        if (reason := self._unsendable()) is not None:
            raise RuntimeError(reason)
        buffer = self._buffer
        self._sent = True
        samplebuffer.end(buffer)
        try:
            self._sender.send_sample(self._output, self._sample, self._length, self._metadata)
        finally:
            samplebuffer.release(buffer)

    def _unsendable(self) -> str | None:
        """Return why the buffer cannot be sent now, or None."""
        if self._sent:
            return "Sample has already been sent"
        views = self._buffer.views
        if views:
            return (
                f"Cannot send: {views} buffer view(s) are still open. "
                "Release all memoryview / numpy references before calling send()."
            )
        return None

    def __enter__(self) -> Any:
        return self.as_buffer()

    def __exit__(self, kind: object, *_: object) -> Literal[False]:
        if kind is None:
            if (reason := self._unsendable()) is not None:
                raise RuntimeError(f"Failed to send: {reason}")
            self.send()
        return False

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'SampleHandler' object")

    def __del__(self) -> None:
        if self._buffer is not None:
            samplebuffer.end(self._buffer)
