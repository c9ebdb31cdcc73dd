"""The state of one other machine, and of the channels to and from it."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from typing import TYPE_CHECKING

import zenoh

from dorad.link.hello import Window
from dorad.link.incoming import Incoming
from dorad.link.pace import LineMeter
from dorad.link.reports import InStatus, OutStatus
from dorad.link.session import reason_of
from dorad.shm.layout import INLINE
from dorad.shm.steps import twin
from dorad.vitalthread import vital_thread

if TYPE_CHECKING:
    from dorad.link.config import ChannelIn, ChannelOut
    from dorad.link.direct import Put
    from dorad.link.forward import ForwardedInput
    from dorad.link.greeting import Greeting
    from dorad.link.hello import Grant
    from dorad.link.outgoing import Outgoing
    from dorad.link.reports import PeerStatus
    from dorad.link.session import Publisher, Session


class Courier:
    """Puts frames, in order. `failed` is the last error, empty if there was none."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        self.failed = ""
        self._publisher = publisher
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._queued = 0
        """Frames that were queued; only the sending thread changes it."""
        self._done = 0
        """Frames that were put; only the courier's thread changes it."""
        self._name = name
        self._thread: threading.Thread | None = None
        """Runs from the first frame on that may wait: most machines never need one."""

    def send(self, frame: bytes, *, may_wait: bool) -> None:
        """Put a frame after all earlier ones: in the thread, unless it surely need not wait."""
        if not may_wait and self._queued == self._done:
            self._deliver(frame)
            return
        self._queued += 1
        self._frames.put(frame)
        if self._thread is None:
            _log.debug("the %s starts", self._name)
            self._thread = vital_thread(self._run, name=self._name)
            self._thread.start()

    @property
    def direct(self) -> Put | None:
        """What puts the next frame at once; None if earlier ones wait.

        Whoever calls it gives an error of Zenoh to `fail`.
        """
        return self._publisher.put if self._queued == self._done else None

    def close(self) -> None:
        """End the thread when it has put everything; do not wait for it."""
        self._frames.put(None)

    def fail(self, frame: bytes, error: zenoh.ZError) -> None:
        """Note that a frame was not sent: it counts as sent, and will be missing there."""
        _log.debug("a frame of %d bytes was not sent: %s", len(frame), error)
        self.failed = reason_of(error)

    def _deliver(self, frame: bytes) -> None:
        try:
            self._publisher.put(frame)
        except zenoh.ZError as error:
            self.fail(frame, error)

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            self._deliver(frame)
            self._done += 1


_log = logging.getLogger(__name__)


class Out:
    """One outgoing channel, and what it takes its messages from."""

    def __init__(
        self,
        spec: ChannelOut,
        channel: Outgoing,
        machine: Machine,
        inputs: list[ForwardedInput],
    ) -> None:
        """`inputs` are the rings of its input; more may be appended."""
        self.spec = spec
        self.channel = channel
        self.machine = machine
        self.inputs = inputs
        self.source = inputs[0].source
        """The node that sends the messages."""
        self.meter = LineMeter(time.monotonic)
        self.active = True
        """Whether the configuration has the channel. One that it has no longer is kept, because it
        may come back: its numbers continue then."""

    def queued(self) -> bool:
        """Return True if messages wait to be taken."""
        return any(item.holds() for item in self.inputs)

    def moved(self) -> bool:
        """Return True if messages seem to wait to be taken."""
        for item in self.inputs:
            if item.inlet.moved():
                return True
        return False

    @property
    def watched(self) -> list[tuple[int, int]]:
        """The words that change when there is something to take; none while nothing is taken."""
        if not self.active or not (self.channel.wants or self.machine.greeting.left):
            return []
        # The words of a ring that was removed may be those of another one by now.
        return [word for item in self.inputs if not item.removed for word in item.watched]


@twin
class InState:
    """The fields of an incoming channel that passing a message on uses."""

    __slots__ = ("channel", "latencies", "latency_ns", "origin", "output")


class In(InState):
    """One incoming channel, and what its messages go to."""

    def __init__(self, spec: ChannelIn, number: int, machine: Machine) -> None:
        self.spec = spec
        self.machine = machine
        self.origin = spec.machine
        self.output = spec.output
        window = Window(spec.messages, spec.bytes)
        # A receiver that comes back after it was removed knows nothing, like another process.
        receiver = secrets.randbits(63)
        self.channel = Incoming(number, receiver, window, spec.max_size, INLINE)
        self.blocked = False
        self.latency_ns = 0
        self.latencies = 0


class Machine:
    """Everything about one other machine."""

    def __init__(self, greeting_of: Greeting, session: Session) -> None:
        self.greeting = greeting_of
        self.opened = 0
        """The number of the greeting that opened the incoming channels."""
        self.outgoing: list[Out] = []
        self.incoming: list[In] = []
        self.grants: dict[str, Grant] = {}
        """What the machine offers, also for channels that this one does not have yet."""
        self.problem = ""
        self.reported: PeerStatus | None = None
        self.connect(session)

    def connect(self, session: Session) -> None:
        """Use a session from now on."""
        machine = self.greeting.peer
        self.session = session
        self._hellos = session.publisher(machine, "hello", zenoh.Priority.INTERACTIVE_HIGH)
        self._acks = session.publisher(machine, "ack", zenoh.Priority.INTERACTIVE_HIGH)
        data = session.publisher(machine, "data", zenoh.Priority.DATA)
        self.courier = Courier(data, f"courier to {machine}")

    def close(self) -> None:
        """End the courier when it has sent everything."""
        self.courier.close()

    def greet(self, hello: bytes) -> None:
        """Send a greeting; it is repeated until it is answered."""
        _put(self._hellos, hello)

    def acknowledge(self, ack: bytes) -> None:
        """Send an acknowledgement; the next one also covers it."""
        _put(self._acks, ack)

    @property
    def bytes_on_the_way(self) -> int:
        """Bytes that the machine has not acknowledged."""
        size = 0
        for out in self.outgoing:
            size += out.channel.bytes_on_the_way
        return size


def _put(publisher: Publisher, data: bytes) -> None:
    try:
        publisher.put(data)
    except zenoh.ZError as error:
        _log.warning("a control frame was not sent: %s", error)


def out_status(out: Out) -> OutStatus:
    """Return the counters of an outgoing channel, and its use of the line since the last time."""
    channel = out.channel
    count, size = channel.on_the_way
    use = out.meter.measure(channel.bytes)
    return OutStatus(
        out.spec.name,
        out.spec.machine,
        channel.opened,
        channel.sent,
        channel.repeated,
        channel.lost,
        channel.uncertain,
        count,
        size,
        use.bytes_per_s,
        use.wait,
    )


def in_status(each: In) -> InStatus:
    """Return the counters of an incoming channel; the average latency starts again."""
    channel = each.channel
    latency = round(each.latency_ns / each.latencies / 1000) if each.latencies else None
    each.latency_ns = each.latencies = 0
    return InStatus(
        each.spec.name,
        each.spec.machine,
        channel.received,
        len(channel.arrived),
        latency,
    )
