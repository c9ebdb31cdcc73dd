"""Writable buffers in shared memory, filled in place and then sent: `send_output_raw`."""

from __future__ import annotations

import ctypes
import operator
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from dorad.node.sender import Sender


class SampleHandler:
    """A buffer of `length` bytes that is sent once, as a UInt8 array.

    As a context manager it hands out the buffer and sends it at the end of the block. All views of
    the buffer must be released before, so that nobody writes what receivers already read.
    """

    _sent = True
    """Until there is a sample to send or to give back."""

    def __init__(
        self,
        attachment: object,
        sender: Sender,
        output: str,
        length: int,
        metadata: dict[str, Any] | None,
    ) -> None:
        """Take a sample. The `attachment` of the node lives at least as long as this handler.

        Raises:
            TypeError: `length` is no integer.
            OverflowError: it is negative.
            RuntimeError: /dev/shm is full.
        """
        length = operator.index(length)
        if length < 0:
            raise OverflowError(f"a buffer cannot be {length} bytes long")
        self._attachment = attachment
        self._sender = sender
        self._output = output
        self._length = length
        self._metadata = metadata
        self._sample = sample = sender.take_sample(length)
        # Every unreleased view holds a reference to this object, which nobody else gets to see.
        self._memory = (ctypes.c_ubyte * length).from_buffer(
            sample.segment.mapping.memory, sample.offset
        )
        self._unshared = sys.getrefcount(self._memory)
        self._handed: memoryview | None = None
        self._sent = False

    def as_memoryview(self) -> memoryview:
        """Return a writable view of the buffer.

        Raises:
            RuntimeError: the buffer was already sent.
        """
        if self._sent:
            raise RuntimeError("Cannot access buffer: the sample has already been sent")
        return memoryview(self._memory).cast("B")

    as_buffer = as_memoryview

    def send(self) -> None:
        """Send the buffer.

        Raises:
            RuntimeError: it was sent before, or views of it are still open.
        """
        if self._sent:
            raise RuntimeError("Sample has already been sent")
        views = sys.getrefcount(self._memory) - self._unshared
        if views > 0:
            raise RuntimeError(
                f"Cannot send: {views} buffer view(s) are still open. "
                "Release all memoryview / numpy references before calling send()."
            )
        self._sent = True
        try:
            self._sender.send_sample(self._output, self._sample, self._length, self._metadata)
        finally:
            self._sender.pool.give_back(self._sample)

    def __enter__(self) -> memoryview:
        self._handed = self.as_memoryview()
        return self._handed

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handed is not None and kind is None and not self._sent:
            handed, self._handed = self._handed, None
            try:
                handed.release()
            except BufferError:
                raise RuntimeError(
                    "Failed to send: Cannot send: a numpy array over the buffer is still open. "
                    "Release it (del) before the end of the block."
                ) from None
            self.send()

    def __del__(self) -> None:
        if not self._sent:
            self._sender.pool.give_back(self._sample)
