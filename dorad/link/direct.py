"""The short ways of a message through a link: without a turn of the loop.

A node's message that ends the sleep of the loop is sent before the loop does anything else. Data
that arrive while it sleeps are delivered in Zenoh's thread. Whatever is not one whole message in
order is left to the loop.

Messages are often milliseconds apart, so that all code runs with cold caches: the native steps of
`dorad/shm/native/link.c` do the same with a fraction of the instructions.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

from dorad.link import frames
from dorad.link.delivery import push
from dorad.link.forward import is_marked
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    import zenoh

    from dorad.link.delivery import Delivery
    from dorad.link.machine import In, Out
    from dorad.link.session import Received
    from dorad.shm.borrow import Taken

    Put = Callable[[bytes], None]
    TakeSample = Callable[[zenoh.Sample], None]

MAX_DIRECT = 256 << 10
"""Bytes of the largest sample that is delivered without being queued."""

_thread = threading.local()
"""`state` is set in the threads of Zenoh whose state the interpreter keeps."""


def keep_thread_state() -> None:
    """Let the interpreter keep its state of the running thread, which is one of Zenoh's.

    Otherwise each callback makes such a state and deletes it at its end, and the kernel maps and
    unmaps memory for it. One call of PyGILState_Ensure without its PyGILState_Release keeps it; the
    callback releases the interpreter's lock all the same.
    """
    if not hasattr(_thread, "state"):
        _thread.state = ctypes.pythonapi.PyGILState_Ensure()


@twin
class DirectOutState:
    """The fields of a channel that sending one message uses."""

    __slots__ = (
        "_inlet",
        "_lowest",
        "_offset",
        "_opening",
        "_put",
        "_room",
        "_sequence",
        "error",
        "frame",
        "unsent",
    )


class DirectOut(DirectOutState):
    """A channel that has nothing to send, and may send the next message at once.

    `frame` is what it has sent, `error` why Zenoh did not take that. `unsent` is a message that was
    taken from the queue, and has to be sent by the loop.
    """

    unsent: Taken | None
    frame: bytes | None
    error: Exception | None

    def __init__(self, out: Out, offset: int, room: int, put: Put) -> None:
        """Send with `put` up to `room` bytes. `offset` is that of the numbers of the messages."""
        channel = out.channel
        self.out = out
        self.frame = self.unsent = self.error = None
        self._item = out.inputs[0]
        self._inlet = self._item.inlet
        self._put = put
        self._room = room
        self._offset = offset
        self._lowest = channel.next_number
        self._sequence = channel.next_sequence
        self._opening = frames.message_prefix(channel.opening)

    def send(self) -> None:
        """Send the next message of the queue, if there is one and it is a plain one."""
        raw = self._item.take_raw()
        if raw is None:
            return
        content, metadata, payload, _ = self._item.taken_of(raw)
        number = self._offset + self._inlet.received - 1
        size = len(metadata) + len(payload)
        if is_marked(metadata) or number < self._lowest or size > self._room:
            self.unsent = raw
            return
        opening = self.out.channel.opening
        head = frames.message_head(opening, self._sequence, number, content, metadata)
        self.frame = b"".join((head, payload))
        try:
            self._put(self.frame)
        except Exception as error:  # noqa: BLE001 - the loop raises it unless it is Zenoh's
            self.error = error


@twin
class LoopSleepState:
    """The fields of the loop's sleep; `working` is held by the thread that may touch anything."""

    __slots__ = ("_bell", "_epoll", "_words", "had_data", "prepared", "wakes_soon", "working")


class LoopSleep(LoopSleepState):
    """The sleep of the loop: what ends it, and who may work meanwhile.

    `prepared` are the channels whose next message is sent at its end. `had_data` says that data
    were delivered, `wakes_soon` that the sleep ends in time to acknowledge them.
    """

    prepared: list[DirectOut]

    def __init__(self, words: memoryview, bell: int, others: Sequence[int]) -> None:
        """Sleep until the doorbell rings or one of the other descriptors is readable.

        The caller is the loop, and awake.
        """
        self.working = threading.Lock()
        self.working.acquire()
        self.had_data = self.wakes_soon = False
        self.prepared = []
        self.fault: Exception | None = None
        """A bug that has shown in a callback."""
        self._words = words
        self._bell = bell
        self._waiter = doorbell.Waiter(bell, others)
        self._epoll = self._waiter.descriptor

    @step
    def sleep(self, nanos: int) -> list[int]:
        """Sleep, then send the next message of each prepared channel.

        Returns the descriptors that are ready. The caller has the doorbell rung from now on.
        """
        self.working.release()
        try:
            ready = self._waiter.wait(nanos)
        finally:
            self.working.acquire()
            self._words[BOX_ASLEEP] = 0
        for each in self.prepared:
            each.send()
        return ready

    def wake(self) -> None:
        """End the sleep, if there is one."""
        fence()
        if self._words[BOX_ASLEEP]:
            doorbell.ring(self._bell)

    def fail(self, error: Exception) -> None:
        """Let the loop raise an error that has shown in a callback: Zenoh would only print it."""
        self.fault = error
        self.wake()


@twin
class DirectInState:
    """The fields of what receives data; see `In`, `Delivery` and `LoopSleep`."""

    __slots__ = ("_ins", "_machine", "_outlets", "_pool", "_queue", "_reached", "_sleep")


class DirectIn(DirectInState):
    """Receives the data of one machine."""

    def __init__(
        self,
        sleep: LoopSleep,
        ins: dict[int, In],
        delivery: Delivery,
        machine: str,
        queue: deque[Received],
        otherwise: TakeSample,
    ) -> None:
        """Deliver to `ins`, the channels by number.

        `otherwise` queues a sample in `queue`, from which the loop takes it.
        """
        self._sleep = sleep
        self._ins = ins
        self._outlets = delivery.outlets
        self._pool = delivery.pool
        self._reached = delivery.reached
        self._machine = machine
        self._queue = queue
        self._delivery = delivery
        self._otherwise = otherwise

    @step
    def take(self, sample: zenoh.Sample) -> None:
        """Deliver a sample if the loop sleeps and nothing waits; else queue it."""
        keep_thread_state()
        if self._queue or not self._deliver(sample.payload):
            self._otherwise(sample)

    def _deliver(self, payload: zenoh.ZBytes) -> bool:
        """Return False if the sample has to be queued.

        No data are queued. So all earlier ones of the same machine are handled, or whoever holds
        the lock is handling them.
        """
        sleep = self._sleep
        if not sleep.working.acquire(blocking=False):
            return False
        try:
            each = self.pass_on(payload)
        except Exception as error:  # noqa: BLE001 - Zenoh would only print it
            sleep.fail(error)
            return True
        finally:
            sleep.working.release()
        if each is None:
            return False
        sleep.had_data = True
        if each.channel.ack_due or not sleep.wakes_soon:
            sleep.wake()
        return True

    def pass_on(self, payload: zenoh.ZBytes) -> In | None:
        """Deliver a sample that is one whole message, as most are; return its channel.

        Return None if it is anything else, which changes nothing. Then the loop has to handle it,
        with all that can be wrong with it.
        """
        if not frames.OVERHEAD <= len(payload) <= MAX_DIRECT:
            return None
        data = payload.to_bytes()
        each = self._ins.get(frames.channel_of(data))
        if each is None or each.origin != self._machine:
            return None
        delivery = self._delivery
        if each.blocked or delivery.is_blocked(each.output):
            return None
        arrived = each.channel.pass_on(data, delivery.allocate)
        if arrived is not None:
            push(delivery, each, arrived)
        return None if arrived is None else each
