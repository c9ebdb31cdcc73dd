"""A slow and lossy cable: slowline.py TAP TAP DELAY LOSS RATE carries frames between two TAPs.

DELAY is in seconds and RATE in bytes a second, each way; LOSS is a share of the frames. Not every
kernel has a queueing discipline that delays packets.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x1002
MAX_FRAME = 65_536
BACKLOG_S = 0.5
"""How much waits for the line; what comes beyond is lost, as in a modem."""


def open_tap(name: str) -> int:
    """Create a TAP and return its descriptor."""
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
    return number


class Direction:
    """The way from one end to the other."""

    def __init__(self, source: int, target: int, delay: float, loss: float, rate: float) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._loss = loss
        self._rate = rate
        self._free = 0.0
        """When the line has sent all that waits for it."""
        self._frames: deque[tuple[float, bytes]] = deque()
        """Each with the time of its arrival."""

    def take(self, now: float) -> None:
        """Take one frame, and lose it or put it on the line."""
        try:
            frame = os.read(self._source, MAX_FRAME)
        except OSError:
            return  # that end is down
        begin = max(now, self._free)
        if begin - now > BACKLOG_S or random.random() < self._loss:
            return
        self._free = begin + len(frame) / self._rate
        self._frames.append((self._free + self._delay, frame))

    def deliver(self, now: float) -> None:
        """Deliver what has arrived."""
        while self._frames and self._frames[0][0] <= now:
            try:
                os.write(self._target, self._frames.popleft()[1])
            except OSError:
                continue  # that end is down, so the frame is lost

    @property
    def due(self) -> float:
        """When something arrives."""
        return self._frames[0][0] if self._frames else float("inf")


def main(names: list[str], delay: float, loss: float, rate: float) -> None:
    """Carry frames until killed."""
    one, other = map(open_tap, names)
    ways = {
        one: Direction(one, other, delay, loss, rate),
        other: Direction(other, one, delay, loss, rate),
    }
    poll = select.epoll()
    for number in ways:
        poll.register(number, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        wait = min(way.due for way in ways.values()) - time.monotonic()
        for number, _ in poll.poll(max(0.0, wait) if wait < float("inf") else -1):
            ways[number].take(time.monotonic())
        for way in ways.values():
            way.deliver(time.monotonic())


if __name__ == "__main__":
    main(sys.argv[1:3], *map(float, sys.argv[3:6]))
