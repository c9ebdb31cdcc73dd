"""The receiver's end of a channel: assembles messages and gives credit.

Pure: it is fed frames and says what to acknowledge. The transport keeps the order within one
opening. What is missing between two messages is counted where they are delivered.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from dorad.link.frames import (
    Ack,
    Content,
    Event,
    FrameError,
    Message,
    Numbering,
    Opening,
    Part,
    Start,
    make,
    message_prefix,
    whole_message,
)
from dorad.link.hello import Grant, Window
from dorad.shm.steps import twin

_NO_MESSAGE = b"\0"
"""No message begins with this."""

_NO_NUMBERING = Numbering(0, 0)

_ACK_SHARE = 4
"""An acknowledgement is due when this fraction (one in N) of the window is unacknowledged."""


MAX_EVENTS = 1000
"""Events that may wait beside the messages of a window."""


class Memory(Protocol):
    """Memory for the payload of one message."""

    def write(self, at: int, data: Any) -> None:
        """Copy bytes to `at`."""


class Arrived(NamedTuple):
    """A message that has arrived completely."""

    sequence: int
    number: int
    numbering: Numbering
    content: Content
    metadata: bytes
    memory: Memory | None
    """Where the payload is; None if it is in `payload`."""
    payload: bytes


@dataclass(slots=True)
class _Assembly:
    message: Message
    memory: Memory
    filled: int


@twin
class IncomingState:
    """The fields of a channel that passing a message on uses."""

    __slots__ = (
        "_ack_bytes",
        "_ack_messages",
        "_acked_bytes",
        "_acked_next",
        "_assembly",
        "_bytes",
        "_bytes_handled",
        "_next",
        "_numbering",
        "_prefix",
        "arrived",
        "max_size",
        "received",
    )


class Incoming(IncomingState):
    """One channel from one machine.

    `arrived` holds complete messages and events in order; the code that handles the first calls
    `handled`. `received` counts complete messages.
    """

    arrived: deque[Arrived | Event]
    _assembly: _Assembly | None

    def __init__(
        self, number: int, incarnation: int, window: Window, max_size: int, inline: int
    ) -> None:
        """Receive messages of at most `max_size` bytes; `incarnation` is that of this process.

        A payload of at most `inline` bytes needs no memory of its own.
        """
        self.number = number
        self.incarnation = incarnation
        self.window = window
        self.max_size = max_size
        self.inline = inline
        self.arrived = deque()
        self.received = 0
        self.opening = 0
        self._open = False
        self._prefix = _NO_MESSAGE
        """What the messages of the present opening begin with, once its sender is known."""
        self._sender: int | None = None
        self._numbering = _NO_NUMBERING
        self._next = 0
        self._assembly = None
        self._bytes = self._bytes_handled = 0
        self._sizes: deque[int] = deque()
        self._held = 0
        """Bytes of `arrived`."""
        self._acked_next = self._acked_bytes = 0
        # An acknowledgement is due when so much is not acknowledged.
        self._ack_messages = -(-window.messages // _ACK_SHARE)
        self._ack_bytes = -(-window.bytes // _ACK_SHARE)

    def open(self) -> None:
        """Begin a new opening, after `close`; frames of the previous one are ignored."""
        self.opening += 1
        self._open = True
        if self._sender is not None:
            self._prefix = message_prefix(Opening(self.number, self.opening, self._sender))
        # What has arrived but was not handled yet still takes up credit.
        self._bytes = sum(self._sizes)
        self._bytes_handled = 0
        self._acked_next, self._acked_bytes = self._ack_state()

    def close(self) -> Memory | None:
        """End the opening: the sender has disconnected.

        Returns the memory of a message that is not complete, which the caller takes back.
        """
        self._open = False
        self._prefix = _NO_MESSAGE
        assembly, self._assembly = self._assembly, None
        return None if assembly is None else assembly.memory

    @property
    def grant(self) -> Grant:
        """The present opening, as its sender has to know it."""
        return Grant(
            self.number,
            self.opening,
            self.incarnation,
            self.window,
            self._sender,
            self._next,
            self._ack_state()[0],
            sum(self._sizes),
        )

    def arrive(self, frame: Start | Message | Part | Event, take: Callable[[int], Memory]) -> None:
        """Handle the next frame; one of an earlier opening is ignored.

        `take` returns the memory for a payload of the given number of bytes.

        Raises:
            FrameError: the frame cannot follow the previous one.
        """
        _, opening, sender = frame.opening
        if not self._open or opening != self.opening:
            return
        if isinstance(frame, Part):
            self._continue(frame)
            return
        if isinstance(frame, Start):
            if sender == self._sender:
                raise FrameError("its sender starts twice")
            self._sender, self._next, self._numbering = sender, frame.first, frame.numbering
            self._prefix = message_prefix(frame.opening)
            return
        if self._assembly is not None:
            raise FrameError(f"message {self._assembly.message.sequence} is not complete")
        if self.arrived:
            self._check_credit()
        if isinstance(frame, Message) and frame.content.size > self.max_size:
            size = frame.content.size
            raise FrameError(f"a message of {size} bytes; {self.max_size} are allowed")
        # A message comes after all earlier ones. Not each must have come.
        if self._sender != sender:
            raise FrameError("its sender has not started")
        if frame.sequence < self._next:
            raise FrameError(f"message {frame.sequence} comes after {self._next - 1}")
        if isinstance(frame, Message):
            self._begin(frame, take)
        else:
            self._complete(frame, 0)

    def pass_on(self, data: bytes, take: Callable[[int], Memory]) -> Arrived | None:
        """Return the message of a sample that is one whole message, in order; it counts as handled.

        Return None for any other sample, or if earlier messages wait. Then `arrive` has to handle
        its frames, and refuses what must not come.
        """
        if self.arrived or self._assembly is not None or not data.startswith(self._prefix):
            return None
        message = whole_message(data)
        if message is None:
            return None
        sequence, number, content, metadata, begin = message
        size = content.size
        if sequence < self._next or size > self.max_size:
            return None
        self._next = sequence + 1
        self.received += 1
        self._bytes += size + len(metadata)
        self._bytes_handled += size + len(metadata)
        memory = None
        if size > self.inline:
            memory = take(size)
            memory.write(0, memoryview(data)[begin:])
        payload = data[begin:] if memory is None else b""
        arrived = (sequence, number, self._numbering, content, metadata, memory, payload)
        return make(Arrived, arrived)

    def _check_credit(self) -> None:
        """Refuse what a sender within its credit would not send: it would wait without bound.

        Events need no credit, and a single message may have more bytes than the window.
        """
        messages = 2 * self.window.messages + MAX_EVENTS
        if len(self.arrived) > messages or self._held > 2 * self.window.bytes + self.max_size:
            raise FrameError(f"its sender exceeds its credit: {len(self.arrived)} messages wait")

    def _begin(self, frame: Message, take: Callable[[int], Memory]) -> None:
        _, self._next, _, content, metadata, payload = frame
        self._bytes += len(payload) + len(metadata)
        size = content.size
        if size <= self.inline:
            self._arrived(frame, None, bytes(payload))
            return
        memory = take(size)
        memory.write(0, payload)
        if len(payload) == size:
            self._arrived(frame, memory, b"")
            return
        # Without its first bytes, which would stay in memory until the last ones come.
        head = frame._replace(payload=memoryview(b""))
        self._assembly = _Assembly(head, memory, len(payload))

    def _continue(self, part: Part) -> None:
        assembly = self._assembly
        payload = part.payload
        if assembly is None or (part.sequence, part.offset) != (
            assembly.message.sequence,
            assembly.filled,
        ):
            raise FrameError(f"byte {part.offset} of message {part.sequence} is out of order")
        if part.offset + len(payload) > assembly.message.content.size:
            raise FrameError(f"message {part.sequence} is longer than it says")
        assembly.memory.write(part.offset, payload)
        assembly.filled += len(payload)
        self._bytes += len(payload)
        if assembly.filled == assembly.message.content.size:
            self._assembly = None
            self._arrived(assembly.message, assembly.memory, b"")

    def _arrived(self, message: Message, memory: Memory | None, payload: bytes) -> None:
        _, sequence, number, content, metadata, _ = message
        arrived = (sequence, number, self._numbering, content, metadata, memory, payload)
        self._complete(make(Arrived, arrived), content.size + len(metadata))

    def _complete(self, item: Arrived | Event, size: int) -> None:
        self._next = item.sequence + 1
        self.received += isinstance(item, Arrived)
        self.arrived.append(item)
        self._sizes.append(size)
        self._held += size

    def handled(self) -> None:
        """Remove the first of `arrived`, which gives its credit back."""
        self.arrived.popleft()
        size = self._sizes.popleft()
        self._bytes_handled += size
        self._held -= size

    def _ack_state(self) -> tuple[int, int]:
        """Return what to acknowledge: all before a sequence number, and so many bytes.

        Of a message that is being assembled these are the bytes that came. Behind messages that
        wait to be handled it has to wait as well.
        """
        if self.arrived:
            return self.arrived[0].sequence, self._bytes_handled
        return self._next, self._bytes

    @property
    def owes(self) -> bool:
        """Whether something was handled that is not acknowledged."""
        return self._open and self._ack_state() != (self._acked_next, self._acked_bytes)

    @property
    def ack_due(self) -> bool:
        """Whether so much is not acknowledged that the sender may soon run out of credit."""
        number, size = self._ack_state()
        return self._open and (
            number - self._acked_next >= self._ack_messages
            or size - self._acked_bytes >= self._ack_bytes
        )

    def acknowledge(self) -> Ack:
        """Return the acknowledgement of all that was handled; it counts as sent."""
        number, size = self._acked_next, self._acked_bytes = self._ack_state()
        return Ack(Opening(self.number, self.opening, self.incarnation), number, size)
