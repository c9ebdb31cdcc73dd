"""iceoryx2's Python binding: raw bytes out, 8 bytes back, between two processes.

Arguments: sizes and counts (comma-separated), ``heap`` (the payload is copied into the sample) or
``shm`` (the sample is only stamped), ``blocking`` (an event wakes the other side), ``pinned``
(the same with both on one core) or ``polling`` (both sides look all the time). Prints JSON.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

import iceoryx2 as iox2

WARM_UP = 50
SILENCE_S = 10
CELL = ctypes.sizeof(ctypes.c_int64)


class Side:
    """One end of a pair of one-way services, each with an event that says "look"."""

    def __init__(self, sends: str, receives: str, largest: int, blocking: bool) -> None:
        iox2.set_log_level(iox2.LogLevel.Error)
        self._blocking = blocking
        self._node = (
            iox2.NodeBuilder.new()
            .signal_handling_mode(iox2.SignalHandlingMode.Disabled)
            .create(iox2.ServiceType.Ipc)
        )
        out, into = self._data(sends), self._data(receives)
        self._publisher = out.publisher_builder().initial_max_slice_len(largest).create()
        self._subscriber = into.subscriber_builder().create()
        self._notifier = self._event(sends).notifier_builder().create()
        self._listener = self._event(receives).listener_builder().create()
        self._timeout = iox2.Duration.from_secs(SILENCE_S)

    def _data(self, name: str) -> Any:
        service = self._node.service_builder(iox2.ServiceName.new(name))
        return service.publish_subscribe(iox2.Slice[ctypes.c_uint8]).open_or_create()

    def _event(self, name: str) -> Any:
        return self._node.service_builder(iox2.ServiceName.new(name)).event().open_or_create()

    def send(self, size: int, source: int | None) -> None:
        sample = self._publisher.loan_slice_uninit(size)
        address = sample.payload_ptr
        if source is None:
            ctypes.c_int64.from_address(address).value = time.monotonic_ns()
        else:
            ctypes.memmove(address, source, size)
        sample.assume_init().send()
        if self._blocking:
            self._notifier.notify()

    def receive(self) -> int:
        """Wait for the next sample and return its first 8 bytes.

        Raises:
            TimeoutError: the other side is silent for 10 s.
        """
        give_up = time.monotonic() + SILENCE_S
        while (sample := self._subscriber.receive()) is None:
            if time.monotonic() > give_up:
                raise TimeoutError("iceoryx2: the other side is silent")
            if self._blocking:
                self._listener.timed_wait(self._timeout)
        first: int = ctypes.c_int64.from_address(sample.payload_ptr).value
        sample.delete()
        return first


def answer(name: str, largest: int, blocking: bool, messages: int, ready: int) -> None:
    side = Side(f"{name}/back", f"{name}/there", largest, blocking)
    os.eventfd_write(ready, 1)
    reply = ctypes.create_string_buffer(CELL)
    for _ in range(messages):
        side.receive()
        side.send(CELL, ctypes.addressof(reply))
    # The last answer is in this process's segment: wait until the asker has read it.
    side.receive()


def ask(side: Side, steps: list[tuple[int, int]], in_shm: bool) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for size, count in steps:
        heap = ctypes.create_string_buffer(size)
        source = None if in_shm else ctypes.addressof(heap)
        times = []
        for _ in range(WARM_UP + count):
            begin = time.monotonic_ns()
            side.send(size, source)
            side.receive()
            times.append(time.monotonic_ns() - begin)
        sizes[str(size)] = {"ns": times[WARM_UP:]}
    side.send(CELL, None)
    return {"sizes": sizes}


def main() -> None:
    sizes, counts = ([int(text) for text in arg.split(",")] for arg in sys.argv[1:3])
    in_shm, blocking = sys.argv[3] == "shm", sys.argv[4] != "polling"
    if sys.argv[4] == "pinned":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    name = f"bench/{os.getpid()}"
    messages = sum(counts) + WARM_UP * len(counts)
    ready = os.eventfd(0)
    child = os.fork()
    if not child:
        answer(name, max(sizes), blocking, messages, ready)
        sys.exit(0)
    side = Side(f"{name}/there", f"{name}/back", max(sizes), blocking)
    os.eventfd_read(ready)
    result = ask(side, list(zip(sizes, counts, strict=True)), in_shm)
    os.waitpid(child, 0)
    print(json.dumps(result))


main()
