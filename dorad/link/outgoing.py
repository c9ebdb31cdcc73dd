"""The sender's end of a channel: decides what to send and to repeat, and counts losses.

Pure: frames come out as bytes, and nothing here knows how they travel. Messages and events get
sequence numbers in the order in which they were added. Two kinds of channel exist:

    reliable   messages are kept until they are acknowledged, and sent again after an interruption
    otherwise  a message is forgotten once it is sent; what an interruption swallows counts as lost

Events are always kept. While the channel is closed or out of credit nothing is taken from the
queue, whose policy then decides: it drops its oldest messages, or makes the node wait.
"""

from collections import deque
from itertools import islice
from typing import Any, NamedTuple

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
    make,
)
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
        pace: Pace,
        next_number: int = 0,
    ) -> None:
        """Send no more than `pace` allows."""
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
        self._receiver: int | None = None
        """The incarnation of the process that opened the channel last."""
        self._next = 0
        """The sequence number of the next message or event."""
        self._handled = 0
        """Everything before this is acknowledged, held by the receiver, or lost."""
        self._finished = 0
        """Everything before this has been sent completely, at least once."""
        self._acked = 0
        self._resumed = 0
        """The receiver may still hold what lies from `_acked` to here."""
        self._unkept: deque[int] = deque()
        """The messages that were sent, are not kept, and are not acknowledged."""
        self._items: deque[_Taken | _QueuedEvent] = deque()
        self.bytes_on_the_way = 0
        """How many bytes are not acknowledged."""
        # The state of the present opening, or of the last one: `open` sets it.
        self._opening: Opening
        self._start: int | None
        """What to send in a `Start` before anything else."""
        self._first: int
        """The sequence number of the first item that the receiver's process needs."""
        self._first_number: int
        """The number of the first message at or after `_first`."""
        self._cursor: int
        """How many of `_items` have been sent completely."""
        self._offset: int | None
        """How much of the payload of the item at the cursor has been sent; None if nothing has."""
        self._waiting: int
        """Bytes of payload of the items from the cursor on."""
        self._bytes_sent: int

    @property
    def opening(self) -> Opening:
        """The opening of the last grant; the channel was open."""
        return self._opening

    @property
    def next_sequence(self) -> int:
        """The sequence number of the next message or event."""
        return self._next

    @property
    def opened(self) -> bool:
        """Whether the receiver has offered credit and is connected."""
        return self._grant is not None

    @property
    def on_the_way(self) -> tuple[int, int]:
        """How many messages and events are not acknowledged, and how many bytes."""
        return self._messages_on_the_way(), self.bytes_on_the_way

    def _messages_on_the_way(self) -> int:
        return self._next - self._handled + max(0, self._resumed - self._acked)

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
        return self._messages_on_the_way() < grant.window.messages

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
        item = (self._next, number, content, metadata, payload, owner)
        self._items.append(make(_Taken, item))
        self._next += 1
        self.next_number = number + 1
        self._waiting += len(payload)

    def direct_room(self) -> int:
        """Return how many bytes the next message may have to be sent before it is added.

        0 if something else has to be sent before it.
        """
        grant = self._grant
        if (
            not self.wants
            or grant is None
            or self._start is not None
            or self._cursor < len(self._items)
        ):
            return 0
        room = frames.MAX_FRAGMENT
        if self.bytes_on_the_way:
            room = min(room, grant.window.bytes - self.bytes_on_the_way)
            if self.bytes_on_the_way >= self._pace.limit:
                return 0
        return room

    def add_sent(self, frame: bytes) -> None:
        """Add the next message, which was sent as `frame` already, within `direct_room`."""
        message = frames.whole_message(frame)
        assert message is not None
        _, number, content, metadata, begin = message
        payload = memoryview(frame)[begin:]
        self.add(number, content, metadata, payload, None)
        size = len(payload) + len(metadata)
        self._bytes_sent += size
        self.bytes_on_the_way += size
        self.bytes += size
        self._finish(self._items[-1])
        self._pace.sent(self._bytes_sent, self.bytes_on_the_way, size)

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
        opening, credit = self._opening, grant.window.bytes
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
            sequence, number, content, metadata, payload, _ = item
            at = self._offset or 0
            end = min(at + frames.MAX_FRAGMENT, len(payload))
            cost = end - at + (len(metadata) if self._offset is None else 0)
            if not self._pace.allows(self.bytes_on_the_way, cost, credit):
                break
            if self._offset is None:
                head = frames.message_head(opening, sequence, number, content, metadata)
            else:
                head = frames.part_head(opening, sequence, at)
            pieces += (head, payload[at:end])
            size += cost
            self._bytes_sent += cost
            self.bytes_on_the_way += cost
            self.bytes += cost
            self._offset = end
            if end < len(payload):
                break
            self._finish(item)
            # Only a message says where it ends.
            if at or self._cursor == len(self._items):
                break
            item = self._items[self._cursor]
        if not pieces:
            return None
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
        self.bytes_on_the_way = min(self.bytes_on_the_way, self._bytes_sent - ack.received)
        handled = self._bytes_sent - self.bytes_on_the_way
        self._pace.acknowledged(handled, self.bytes_on_the_way)
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
        self._bytes_sent = self.bytes_on_the_way = grant.held
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
        self._bytes_sent = self.bytes_on_the_way = 0

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
