"""Delivery of a running dataflow's log lines to its followers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dorad.logrecord import LogRecord, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.logs.selection import Selection

QUEUE_LINES = 10_000
"""Maximum of lines queued for one follower. A slower one misses lines and gets a count."""

QUEUE_CHARACTERS = 1 << 23
"""Characters in them, after which no more is queued: a line of a node may have a million."""


class Lines(NamedTuple):
    """Lines, oldest first, and the number of lines left out before them."""

    records: list[LogRecord]
    left_out: int = 0


class Follower:
    """An iterator over `Lines` that ends with the dataflow."""

    def __init__(self, hub: LogHub, selection: Selection) -> None:
        self._hub = hub
        self._selection = selection
        self._batches: deque[Lines] = deque()
        self._waiting = 0
        self._room = QUEUE_CHARACTERS
        """Characters that may still be queued."""
        self._left_out = 0
        self._ended = False
        self._changed = asyncio.Event()

    def offer(self, records: Sequence[LogRecord]) -> None:
        """Queue the selected records; count those that do not fit."""
        wanted = [record for record in records if self._selection.passes(record)]
        lines = QUEUE_LINES - self._waiting
        taken: list[LogRecord] = []
        for record in wanted:
            if len(taken) >= lines or self._room <= 0:
                break
            taken.append(record)
            self._room -= size(record)
        if taken:
            self._batches.append(Lines(taken, self._left_out))
            self._waiting += len(taken)
            self._left_out = 0
            self._changed.set()
        self._left_out += len(wanted) - len(taken)

    def end(self) -> None:
        """End the iteration after the queued lines."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Stop following. Idempotent."""
        self._hub.leave(self)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Lines:
        while not self._batches:
            if self._ended:
                return self._last()
            self._changed.clear()
            await self._changed.wait()
        batch = self._batches.popleft()
        self._waiting -= len(batch.records)
        self._room += sum(map(size, batch.records))
        return batch

    def _last(self) -> Lines:
        if not self._left_out:
            raise StopAsyncIteration
        left_out, self._left_out = self._left_out, 0
        return Lines([], left_out)


class LogHub:
    """The followers of one dataflow's log. Belongs to one event loop."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()
        self._ended = False

    def follow(self, selection: Selection) -> Follower:
        """Return a follower of everything published from now on; the caller closes it."""
        follower = Follower(self, selection)
        if self._ended:
            follower.end()
        else:
            self._followers.add(follower)
        return follower

    def publish(self, records: Sequence[LogRecord]) -> None:
        """Hand lines to all followers. Never blocks."""
        for follower in self._followers:
            follower.offer(records)

    def leave(self, follower: Follower) -> None:
        """Stop publishing to `follower`."""
        self._followers.discard(follower)

    def end(self) -> None:
        """End all followers, after the lines that they have not read yet."""
        self._ended = True
        for follower in self._followers:
            follower.end()
        self._followers.clear()
