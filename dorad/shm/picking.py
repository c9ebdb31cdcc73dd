"""A consumer's end of an edge that can choose among the queued messages."""

from __future__ import annotations

import struct

from dorad.shm.fence import STRONG_ORDER, acquire
from dorad.shm.inlet import Inlet
from dorad.shm.layout import ENTRY_SIZE

_STAMP = struct.Struct("=Q")


class PickingInlet(Inlet):
    """An inlet whose queued messages can be inspected, and skipped, before one is taken.

    Skipped messages count as dropped.
    """

    __slots__ = ()

    def moved(self) -> bool:
        """Return True if `take` would return a message. Thread-safe, because there is no lane."""
        return self.ready()

    def next_index(self) -> int:
        """Return the index that the next pushed message will have."""
        return self._words[self.head_at]

    def keep_newest(self) -> None:
        """Skip all queued messages but the newest."""
        self.skip_to(self._end() - 1)

    def stamps(self, most: int) -> tuple[int, list[int]]:
        """Return the index of the oldest queued message, and the timestamps from that one on.

        There are at most `most` timestamps, in ns since 1970. The ring does not change. If the
        producer laps us meanwhile, they are wrong, which `take` detects.
        """
        end = self._end()
        first = max(self.tail, self._words[self.head_at] - self.queue_size)
        if not STRONG_ORDER:
            acquire()
        read, memory = _STAMP.unpack_from, self._memory
        places = range(first, min(end, first + most))
        return first, [
            read(memory, self._entries + (index & self._mask) * ENTRY_SIZE)[0] for index in places
        ]

    def skip_to(self, index: int) -> None:
        """Skip all messages before the one with this index."""
        if index > self.tail:
            self._skip_to(index)
            self._make_room_known()

    def count_dropped(self) -> None:
        """Count the message that was taken last as dropped after all."""
        self._received = self._words[self._received_at] = self._received - 1

    def _end(self) -> int:
        head = self._words[self.head_at]
        return head if self.limit is None else min(head, self.limit)
