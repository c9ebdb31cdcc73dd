"""Sends the frames for one machine, in its own thread where that may take time.

Credit keeps Zenoh's queues short, but a machine that stops reading can still make one `put` wait
for seconds. Only the courier of that machine waits then.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

import zenoh

from dorad.link.session import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Courier:
    """Puts frames, in order. `failed` is the last error, empty if there was none."""

    def __init__(self, put: Callable[[bytes], None], name: str) -> None:
        self.failed = ""
        self._put = put
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._queued = 0
        """Frames that were queued; only the sending thread changes it."""
        self._done = 0
        """Frames that were put; only the courier's thread changes it."""
        self._name = name
        self._thread: threading.Thread | None = None
        """Runs from the first frame on that may wait: most machines never need one."""

    @property
    def idle(self) -> bool:
        """Whether all queued frames have been put."""
        return self._queued == self._done

    def send(self, frame: bytes, *, may_wait: bool) -> None:
        """Put a frame after all earlier ones: in the thread, unless it surely need not wait."""
        if not may_wait and self.idle:
            self._deliver(frame)
            return
        self._queued += 1
        self._frames.put(frame)
        if self._thread is None:
            _log.debug("the %s starts", self._name)
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread when it has put everything; do not wait for it."""
        self._frames.put(None)

    def _deliver(self, frame: bytes) -> None:
        try:
            self._put(frame)
        except zenoh.ZError as error:
            _log.debug("a frame of %d bytes was not sent: %s", len(frame), error)
            self.failed = reason_of(error)

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            self._deliver(frame)
            self._done += 1
