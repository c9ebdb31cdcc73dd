"""The sender's end of a channel: decides what to send and to repeat, and counts losses.

Pure: frames come out as bytes, and nothing here knows how they travel. Messages and events get
sequence numbers in the order in which they were added. Two kinds of channel exist:

    reliable   messages are kept until they are acknowledged, and sent again after an interruption
    otherwise  a message is forgotten once it is sent; what an interruption swallows counts as lost

Events are always kept. While the channel is closed or out of credit nothing is taken from the
queue, whose policy then decides: it drops its oldest messages, or makes the node wait.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.link import frames
from dorad.link.frames import (
    Ack,
    Content,
    Event,
    EventKind,
    FrameError,
    Numbering,
    Opening,
    Start,
)

if TYPE_CHECKING:
    from dorad.link.hello import Grant
    from dorad.link.pace import Pace


class _Taken(NamedTuple):
    """A message that was taken from the queue; `owner` keeps the memory of its payload."""

    sequence: int
    number: int
    content: Content
    metadata: bytes
    payload: memoryview
    owner: Any


class _QueuedEvent(NamedTuple):
    sequence: int
    kind: EventKind
    text: str


class Outgoing:
    """One channel to one machine.

    `numbering` is the id of the numbers of its messages, and `next_number` that of the next one;
    see `dorad.link.numbering`.

    `sent` counts messages that were sent completely, each once; `repeated` those that were sent
    again. `lost` counts messages that the receiver has not got and will not get. `uncertain` counts
    those that were on the way when the receiver's process ended: it may have handled them.
    """

    def __init__(
        self,
        incarnation: int,
        *,
        reliable: bool,
        numbering: int,
        next_number: int = 0,
        pace: Pace | None = None,
    ) -> None:
        """Send no more than `pace` allows; without it, what the credit allows."""
        self.reliable = reliable
        self.numbering = numbering
        self.next_number = next_number
        self.sent = 0
        self.repeated = 0
        self.bytes = 0
        """Bytes that were sent, with those that were sent again."""
        self.lost = 0
        self.uncertain = 0
        self._incarnation = incarnation
        self._pace = pace
        self._grant: Grant | None = None
        self._opening = Opening(0, 0, incarnation)
        """That of the last grant."""
        self._receiver: int | None = None
        """The incarnation of the process that opened the channel last."""
        self._start: int | None = None
        """What to send in a `Start` before anything else."""
        self._first = 0
        """The sequence number of the first item that the receiver's process needs."""
        self._first_number = next_number
        """The number of the first message at or after `_first`."""
        self._next = 0
        """The sequence number of the next message or event."""
        self._handled = 0
        """Everything before this is acknowledged, held by the receiver, or lost."""
        self._finished = 0
        """Everything before this has been sent completely, at least once."""
        self._resumed = 0
        self._acked = 0
        """The receiver may still hold what lies from here to `_resumed`."""
        self._unkept: deque[int] = deque()
        """The messages that were sent, are not kept, and are not acknowledged."""
        self._items: deque[_Taken | _QueuedEvent] = deque()
        self._cursor = 0
        """How many of `_items` have been sent completely in this opening."""
        self._offset: int | None = None
        """How much of the payload of the item at the cursor has been sent; None if nothing has."""
        self._waiting = 0
        """Bytes of payload of the items from the cursor on."""
        self._bytes_sent = 0
        self._bytes_handled = 0

    @property
    def opened(self) -> bool:
        """Whether the receiver has offered credit and is connected."""
        return self._grant is not None

    @property
    def on_the_way(self) -> tuple[int, int]:
        """How many messages and events are not acknowledged, and how many bytes."""
        held = max(0, self._resumed - self._acked)
        return self._next - self._handled + held, self.bytes_on_the_way

    @property
    def bytes_on_the_way(self) -> int:
        """How many bytes are not acknowledged."""
        return self._bytes_sent - self._bytes_handled

    @property
    def receiver(self) -> int | None:
        """The number of the receiver that opened the channel last; None if none has."""
        return self._receiver

    @property
    def wants(self) -> bool:
        """Whether to take the next message from the queue now."""
        grant = self._grant
        if grant is None or self._waiting >= frames.MAX_BATCH:
            return False
        held = max(0, self._resumed - self._acked)
        return self._next - self._handled + held < grant.window.messages

    def waits(self, *, queued: bool) -> bool:
        """Return True if a message waits for acknowledgements, now that `next_sample` returns None.

        `queued` is whether messages wait to be taken. While the channel is closed they wait for the
        machine, which is shown as a link that is not up.
        """
        if self._grant is None:
            return False
        return self._cursor < len(self._items) or (queued and not self.wants)

    @property
    def idle(self) -> bool:
        """Whether everything that was taken is acknowledged or given up."""
        return not self._items and self._next == self._handled

    def add(
        self, number: int, content: Content, metadata: bytes, payload: memoryview, owner: Any
    ) -> None:
        """Add a message. Call it only if the channel `wants` one."""
        self._items.append(_Taken(self._next, number, content, metadata, payload, owner))
        self._next += 1
        self.next_number = number + 1
        self._waiting += len(payload)

    def add_event(self, kind: EventKind, text: str = "") -> None:
        """Add an event, at any time. It needs no credit."""
        self._items.append(_QueuedEvent(self._next, kind, text))
        self._next += 1

    def next_sample(self) -> bytes | None:
        """Return the next frame to send, or several small messages at once.

        Returns None if there is nothing to send or no credit left.
        """
        grant = self._grant
        if grant is None or self._cursor == len(self._items):
            return None
        opening = self._opening
        if self._start is not None:
            numbering = Numbering(self.numbering, self._first_number)
            start, self._start = Start(opening, self._start, numbering), None
            return frames.encode_start(start)
        item = self._items[self._cursor]
        if isinstance(item, _QueuedEvent):
            self._finish(item)
            return frames.encode_event(Event(opening, *item))
        pieces: list[bytes | memoryview] = []
        size = 0
        while isinstance(item, _Taken) and size < frames.MAX_BATCH:
            at = self._offset or 0
            end = min(at + frames.MAX_FRAGMENT, len(item.payload))
            cost = end - at + (len(item.metadata) if self._offset is None else 0)
            on_the_way = self.bytes_on_the_way
            credit = grant.window.bytes
            if self._pace is not None:
                if not self._pace.allows(on_the_way, cost, credit):
                    break
            elif on_the_way and on_the_way + cost > credit:
                break
            if self._offset is None:
                _, number, content, metadata, *_ = item
                head = frames.message_head(opening, item.sequence, number, content, metadata)
            else:
                head = frames.part_head(opening, item.sequence, at)
            pieces += (head, item.payload[at:end])
            size += cost
            self._bytes_sent += cost
            self.bytes += cost
            self._offset = end
            if end < len(item.payload):
                break
            self._finish(item)
            # Only a message says where it ends.
            if at or self._cursor == len(self._items):
                break
            item = self._items[self._cursor]
        if not pieces:
            return None
        if self._pace is not None:
            self._pace.sent(self._bytes_sent, self.bytes_on_the_way, size)
        return b"".join(pieces)

    def _finish(self, item: _Taken | _QueuedEvent) -> None:
        self._offset = None
        if isinstance(item, _Taken):
            self._waiting -= len(item.payload)
        if item.sequence >= self._finished:
            self._finished = item.sequence + 1
            self.sent += isinstance(item, _Taken)
        else:
            self.repeated += isinstance(item, _Taken)
        if self.reliable or isinstance(item, _QueuedEvent):
            self._cursor += 1
        else:
            del self._items[self._cursor]
            self._unkept.append(item.sequence)

    def acknowledge(self, ack: Ack) -> None:
        """Take back credit. An acknowledgement of an earlier opening has no effect.

        Raises:
            FrameError: it acknowledges what was never sent.
        """
        grant = self._grant
        if grant is None or ack.opening[:2] != (grant.channel, grant.opening):
            return
        if ack.next > self._finished or ack.received > self._bytes_sent:
            raise FrameError(
                f"message {ack.next} and byte {ack.received} are acknowledged, but only "
                f"{self._finished} and {self._bytes_sent} were sent"
            )
        self._bytes_handled = max(self._bytes_handled, ack.received)
        if self._pace is not None:
            self._pace.acknowledged(self._bytes_handled, self.bytes_on_the_way)
        self._acked = max(self._acked, ack.next)
        self._forget_before(ack.next)

    def _forget_before(self, sequence: int) -> None:
        self._handled = max(self._handled, sequence)
        while self._cursor and self._items[0].sequence < sequence:
            self._items.popleft()
            self._cursor -= 1
        while self._unkept and self._unkept[0] < sequence:
            self._unkept.popleft()

    def open(self, grant: Grant) -> None:
        """Begin to send under a new grant, again from the first message that is missing there."""
        self.close()
        self._grant = grant
        self._opening = Opening(grant.channel, grant.opening, self._incarnation)
        met = grant.sender == self._incarnation
        # A receiver that opens the channel again and still knows no sender has had nothing.
        known = met or (grant.receiver == self._receiver)
        self._receiver = grant.receiver
        if met:
            self._acked = min(max(self._acked, grant.handled), self._finished)
            resume = min(max(grant.next, self._acked), self._finished)
        else:
            resume = self._first if known else self._acked
        self._resumed = resume
        self._bytes_sent = grant.held
        self._bytes_handled = 0
        if self._pace is not None:
            self._pace.open()
        while self._items and self._items[0].sequence < self._acked:
            self._items.popleft()
        self._move_cursor(sum(1 for item in self._items if item.sequence < resume))
        # The receiver lacks everything from `resume` on, and these are not kept to be sent again.
        gone = sum(1 for sequence in self._unkept if sequence >= resume)
        self._unkept.clear()
        if known:
            self.lost += gone
        else:
            self.uncertain += gone
        unsent = len(self._items) > self._cursor
        self._handled = self._items[self._cursor].sequence if unsent else self._next
        if not known:
            self._first = self._handled
            kept = islice(self._items, self._cursor, None)
            numbers = (item.number for item in kept if isinstance(item, _Taken))
            self._first_number = next(numbers, self.next_number)
        self._start = None if met else self._first

    def abandon(self) -> None:
        """Forget everything: no input on the other machine receives it now."""
        self._items.clear()
        self.close()
        self._unkept.clear()
        self._handled = self._finished = self._first = self._next
        self._first_number = self.next_number
        self._resumed = self._acked = self._next
        self._bytes_sent = self._bytes_handled = 0

    def close(self) -> None:
        """Stop sending: the receiver has disconnected."""
        self._grant = None
        self._move_cursor(0)
        # A message that was sent in part is sent again from its beginning.
        self._offset = None

    def _move_cursor(self, to: int) -> None:
        self._cursor = to
        waiting = islice(self._items, to, None)
        self._waiting = sum(len(item.payload) for item in waiting if isinstance(item, _Taken))
