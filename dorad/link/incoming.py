"""The receiver's end of a channel: assembles messages and gives credit.

Pure: it is fed frames and says what to acknowledge. The transport keeps the order within one
opening. What is missing between two messages is counted where they are delivered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dorad.link.frames import Ack, Event, FrameError, Message, Numbering, Opening, Part, Start
from dorad.link.hello import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.link.frames import Content
    from dorad.link.hello import Window

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


@dataclass(slots=True)
class Incoming:
    """One channel from one machine.

    `arrived` holds complete messages and events in order; the code that handles the first calls
    `handled`. `received` counts complete messages.
    """

    number: int
    incarnation: int
    """That of this process."""
    window: Window
    max_size: int
    """Bytes; a larger message is refused."""
    inline: int
    """Maximum bytes of a payload that needs no memory of its own."""
    arrived: deque[Arrived | Event] = field(default_factory=deque)
    received: int = 0
    opening: int = 0
    _open: bool = False
    _sender: int | None = None
    _numbering: Numbering = _NO_NUMBERING
    _next: int = 0
    _assembly: _Assembly | None = None
    _bytes: int = 0
    _bytes_handled: int = 0
    _sizes: deque[int] = field(default_factory=deque)
    _held: int = 0
    """Bytes of `arrived`."""
    _acked: tuple[int, int] = (0, 0)

    def open(self) -> None:
        """Begin a new opening, after `close`; frames of the previous one are ignored."""
        self.opening += 1
        self._open = True
        # What has arrived but was not handled yet still takes up credit.
        self._bytes = sum(self._sizes)
        self._bytes_handled = 0
        self._acked = self._ack_state()

    def close(self) -> Memory | None:
        """End the opening: the sender has disconnected.

        Returns the memory of a message that is not complete, which the caller takes back.
        """
        self._open = False
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
            self._handled_next(),
            sum(self._sizes),
        )

    def is_current(self, opening: Opening) -> bool:
        """Return True if a frame belongs to the present opening."""
        return self._open and opening.opening == self.opening

    def arrive(self, frame: Start | Message | Part | Event, take: Callable[[int], Memory]) -> None:
        """Handle the next frame; one of an earlier opening is ignored.

        `take` returns the memory for a payload of the given number of bytes.

        Raises:
            FrameError: the frame cannot follow the previous one.
        """
        if not self.is_current(frame.opening):
            return
        if isinstance(frame, Part):
            self._continue(frame)
            return
        sender = frame.opening.incarnation
        if isinstance(frame, Start):
            if sender == self._sender:
                raise FrameError("its sender starts twice")
            self._sender, self._next, self._numbering = sender, frame.first, frame.numbering
            return
        if self._assembly is not None:
            raise FrameError(f"message {self._assembly.message.sequence} is not complete")
        self._check_credit()
        if isinstance(frame, Message):
            size = frame.content.size
            if size > self.max_size:
                raise FrameError(f"a message of {size} bytes; {self.max_size} are allowed")
            self._follow(sender, frame.sequence)
            self._begin(frame, take)
        else:
            self._follow(sender, frame.sequence)
            self._complete(frame, 0)

    def _check_credit(self) -> None:
        """Refuse what a sender within its credit would not send: it would wait without bound.

        Events need no credit, and a single message may have more bytes than the window.
        """
        messages = 2 * self.window.messages + MAX_EVENTS
        if len(self.arrived) > messages or self._held > 2 * self.window.bytes + self.max_size:
            raise FrameError(f"its sender exceeds its credit: {len(self.arrived)} messages wait")

    def _follow(self, sender: int, sequence: int) -> None:
        """Check that a message comes after all earlier ones. Not each must have come."""
        if self._sender != sender:
            raise FrameError("its sender has not started")
        if sequence < self._next:
            raise FrameError(f"message {sequence} comes after {self._next - 1}")
        self._next = sequence

    def _begin(self, frame: Message, take: Callable[[int], Memory]) -> None:
        payload = frame.payload
        self._bytes += len(payload) + len(frame.metadata)
        size = frame.content.size
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
        arrived = Arrived(sequence, number, self._numbering, content, metadata, memory, payload)
        self._complete(arrived, content.size + len(metadata))

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

    def _handled_next(self) -> int:
        return self.arrived[0].sequence if self.arrived else self._next

    def _handled_bytes(self) -> int:
        """Return the bytes to acknowledge: of a message that is being assembled, those that came.

        Behind messages that wait to be handled it has to wait as well.
        """
        return self._bytes_handled if self.arrived else self._bytes

    def _ack_state(self) -> tuple[int, int]:
        return self._handled_next(), self._handled_bytes()

    @property
    def owes(self) -> bool:
        """Whether something was handled that is not acknowledged."""
        return self._open and self._ack_state() != self._acked

    @property
    def ack_due(self) -> bool:
        """Whether so much is not acknowledged that the sender may soon run out of credit."""
        number, size = self._ack_state()
        before, size_before = self._acked
        return self._open and (
            (number - before) * _ACK_SHARE >= self.window.messages
            or (size - size_before) * _ACK_SHARE >= self.window.bytes
        )

    def acknowledge(self) -> Ack:
        """Return the acknowledgement of all that was handled; it counts as sent."""
        self._acked = number, size = self._ack_state()
        return Ack(Opening(self.number, self.opening, self.incarnation), number, size)
