"""The consumer's end of an edge for those that choose among what waits there."""

from __future__ import annotations

import struct

from dorad.shm.fence import STRONG_ORDER, acquire
from dorad.shm.layout import ENTRY_SIZE
from dorad.shm.ring import Inlet

_STAMP = struct.Struct("=Q")


class PickingInlet(Inlet):
    """An inlet whose messages can be looked at, and passed over, before one is taken.

    What is passed over is dropped, and counted so.
    """

    __slots__ = ()

    def moved(self) -> bool:
        """Tell whether `take` would return a message; any thread may ask, as it has no lane."""
        return self.ready()

    def seen(self) -> int:
        """Return the index of the message that comes next into the ring."""
        return self._words[self.head_at]

    def keep_newest(self) -> None:
        """Pass over all that waits but the newest."""
        self.pass_to(self._end() - 1)

    def stamps(self, most: int) -> tuple[int, list[int]]:
        """Return the index of the oldest message that waits, and when it and the next were sent.

        At most so many; times in ns since 1970. Nothing changes. A producer that laps us meanwhile
        makes them wrong, which shows when the message is taken.
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

    def pass_to(self, index: int) -> None:
        """Pass over all messages before one."""
        if index > self.tail:
            self._skip_to(index)
            self._make_room_known()

    def disown(self) -> None:
        """Count a message that was taken as dropped after all."""
        self._received = self._words[self._received_at] = self._received - 1

    def _end(self) -> int:
        head = self._words[self.head_at]
        return head if self.limit is None else min(head, self.limit)
