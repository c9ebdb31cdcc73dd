"""The inputs of a link process: messages are taken from their queues unchanged."""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.link.frames import Content, make
from dorad.link.numbering import Mark, read_mark, write_mark
from dorad.node import metadata as metadata_codec
from dorad.node.correlation import MARKING, flags_of, session_of
from dorad.node.daemonevents import origin_of
from dorad.node.peers import ring_at
from dorad.shm.inlet import Inlet, UnreadableError
from dorad.shm.lane import LanedInlet
from dorad.shm.layout import RING_LATCHED

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.shm.borrow import Taken as RawTaken

_log = logging.getLogger(__name__)

_find_mark = re.compile(b"|".join(f'"{re.escape(key)}"'.encode() for key in sorted(MARKING))).search


class Taken(NamedTuple):
    """A message taken from a queue; `owner` keeps the memory of the payload."""

    content: Content
    metadata: bytes
    payload: memoryview
    owner: Any


class ForwardedInput:
    """One ring that feeds an input of the link process; see `Input` in `dorad.node.inputs`.

    The link calls `take_message` when it has credit. `take` never returns an event, so that
    `NodeInputs` only reports what the daemon says.
    """

    def __init__(self, connection: DaemonConnection, item: dict[str, Any]) -> None:
        """Serve the ring that the daemon describes as `item`.

        Raises:
            LayoutError: a peer has overwritten the ring's words in the mailbox.
        """
        self.id: str = item["id"]
        self.source: str = origin_of(item) or ""
        """The node that sends the messages; empty for the lines that a node prints."""
        self.removed = False
        self.inlet = _inlet(connection, item)
        self.ring = self.inlet.base
        self._connection = connection
        self._item = item
        self.offset: int | None = None
        """What the number of a message is ahead of how many were taken; None if it has none yet."""
        self.lacks_bell = item["blocking"] and self.source not in connection.spaces
        """Whether the bell that wakes a waiting sender is still on its way from the daemon."""

    def take_message(self) -> Taken | None:
        """Return the next message, or None. One that cannot be read is skipped and counted."""
        raw = self.take_raw()
        return None if raw is None else self.taken_of(raw)

    def take_raw(self) -> RawTaken | None:
        """Return the next message as `Inlet.take` does, but skip and count what cannot be read."""
        if self.lacks_bell and not self._get_bell():
            return None
        while True:
            try:
                return self.inlet.take()
            except UnreadableError as error:
                self.inlet.count_unreadable()
                _log.warning("input %s: a message cannot be read: %s", self.id, error)

    @staticmethod
    def taken_of(taken: RawTaken) -> Taken:
        """Return the parts of a message that `take_raw` has returned."""
        stamp, code, length, nulls, size, payload, borrow, offset, metadata = taken
        if borrow is None:
            view = memoryview(payload or b"")
        else:
            view = memoryview(borrow.mapping.memory)[offset : offset + size]
        flags = _flags(metadata) if metadata else 0
        content = make(Content, (stamp, code, length, nulls, size, flags))
        return make(Taken, (content, metadata, view, borrow))

    def _get_bell(self) -> bool:
        """Use the bell of the sender; return False if it has not come yet.

        The link is ready before the nodes that it serves are connected. Nothing may be taken before
        that: a sender that waits would not hear of it.
        """
        if self.source and self.source not in self._connection.spaces:
            return False
        self.inlet = _inlet(self._connection, self._item)
        self.lacks_bell = False
        return True

    def mark(self) -> Mark | None:
        """Return what the ring knows of the numbers of its messages."""
        return read_mark(self._connection.box.words, self.ring, self.inlet.received)

    def number_from(self, mark: Mark) -> None:
        """Number the messages of this ring on from `mark`."""
        taken = self.inlet.received
        self.offset = mark.next - taken
        if mark != self.mark():
            write_mark(self._connection.box.words, self.ring, taken, mark)

    def last_number(self, numbering: int, lowest: int) -> int:
        """Return the number of the message that was taken last: `lowest`, if none are missing.

        Messages that were counted, but could not be read, have numbers as well.
        """
        taken = self.inlet.received
        if self.offset is not None and self.offset + taken > lowest:
            return self.offset + taken - 1
        # The ring is new, takes turns with another one, or has repeated its latched message.
        self.number_from(Mark(numbering, lowest + 1))
        return lowest

    def repeat(self) -> None:
        """Take the newest message again if the input is latched: the other machine lacks it."""
        from dorad.shm.latch import LatchedInlet  # few inputs are latched

        if isinstance(self.inlet, LatchedInlet):
            self.inlet.repeat()

    @property
    def watched(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The words that change when a message comes, with their values at the last poll."""
        inlet = self.inlet
        return ((inlet.head_at, inlet.tail), (inlet.lane_head_at, inlet.lane_tail))

    def ready(self) -> bool:
        """Return False: the link process handles no events."""
        return False

    def holds(self) -> bool:
        """Return True if messages are still queued, so that the input must not end yet."""
        return self.inlet.ready()

    def moved(self) -> bool:
        """Return True if a message seems to be queued."""
        return self.inlet.moved()

    def next_stamp(self) -> int:
        """See `dorad.node.inputs.RingInput`."""
        return self.inlet.next_stamp()

    def take(self) -> Event | None:
        """Return None: the link process handles no events."""
        return None

    def stop(self) -> None:
        """Return only what is queued now."""
        self.inlet.freeze()

    def leave(self) -> None:
        """Return what is queued now; then the ring no longer feeds the input."""
        self.removed = True
        self.inlet.freeze()


def _inlet(connection: DaemonConnection, item: dict[str, Any]) -> Inlet:
    ring = ring_at(connection.box.words, item["ring"])
    space = connection.spaces.get(item["source"]) if item["blocking"] else None
    if connection.box.words[ring.base + RING_LATCHED]:
        from dorad.shm.latch import LatchedInlet  # few inputs are latched

        return LatchedInlet(connection.box, ring, connection.segments, space)
    if not ring.lane:
        return Inlet(connection.box, ring, connection.segments, space)
    inlet = LanedInlet(connection.box, ring, connection.segments, space)
    inlet.session_of = session_of
    inlet.on_lost = functools.partial(_report_lost, item["id"])
    return inlet


def _report_lost(input_id: str, lost: int) -> None:
    _log.warning("input %s: %d messages of an exchange were dropped", input_id, lost)


def is_marked(metadata: bytes) -> bool:
    """Return whether the ring entry of the message may have carried flags."""
    return _find_mark(metadata) is not None


def _flags(metadata: bytes) -> int:
    """Return the flags that the ring entry of the message carried."""
    if is_marked(metadata):
        try:
            return flags_of(metadata_codec.decode(metadata))
        except ValueError:
            return 0  # the receiver reports it
    return 0
