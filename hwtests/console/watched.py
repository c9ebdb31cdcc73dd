"""A console that tells what it costs: `python -m hwtests.console.watched SOCKET PIPE`.

PIPE is the descriptor of a socket. Each line that comes there is a question, and gets a line of
JSON: `place` (where the operator is), `text` (what the screen shows), `costs` (after a collection
of garbage, and without the blocks of caches that have a limit), or `allocations` (the code whose
memory has grown since the question before, if Python traces it).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import socket
import sys
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
from textual.cache import FIFOCache, LRUCache

from dorafleet.console.app import ConsoleApp
from dorafleet.console.widgets.grid import Grid
from hwtests.console.child import app_for
from tests.console.driving import screen_text

if TYPE_CHECKING:
    from tracemalloc import Snapshot

MAX_LINES = 25
"""Lines of code that are named for their memory."""


class Watch:
    """Answers questions about one console."""

    def __init__(self, app: ConsoleApp, pipe: socket.socket) -> None:
        self._app = app
        self._pipe = pipe
        self._process = psutil.Process()
        self._before: Snapshot | None = None

    async def answer(self) -> None:
        """Answer until the other end closes."""
        reader, writer = await asyncio.open_connection(sock=self._pipe)
        questions = {
            "place": self._place,
            "text": lambda: screen_text(self._app),
            "costs": self._costs,
            "allocations": self._allocations,
        }
        while question := (await reader.readline()).decode().strip():
            writer.write(json.dumps(questions[question]()).encode() + b"\n")
            await writer.drain()

    def _place(self) -> dict[str, Any]:
        app = self._app
        screen = app.console_screen
        if screen is None or app.screen is not screen or not screen.takes_keys:
            return {"screen": "", "typing": False, "chosen": False}
        marked = any(grid.marks for grid in screen.query(Grid))
        return {
            "screen": screen.NAME,
            "typing": screen.typing,
            "chosen": marked or bool(screen.filter),
        }

    def _costs(self) -> dict[str, Any]:
        gc.collect()
        times = self._process.cpu_times()
        return {
            "memory": self._process.memory_info().rss,
            "blocks": blocks_but_for_caches(),
            "tasks": tasks(),
            "cpu": times.user + times.system,
        }

    def _allocations(self) -> list[str]:
        gc.collect()
        before, self._before = self._before, tracemalloc.take_snapshot()
        if before is None:
            return []
        return list(map(str, self._before.compare_to(before, "lineno")[:MAX_LINES]))


def blocks_but_for_caches() -> int:
    """Return Python's blocks of memory in use, without those that caches with a limit keep.

    Such caches fill for hours and then stop, so they would look like a leak. A copy of the process
    empties them and counts; this one goes on with what it has.
    """
    ours, theirs = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            empty_caches()
            gc.collect()
            os.write(theirs, str(sys.getallocatedblocks()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        counted = pipe.read()
    os.waitpid(copy, 0)
    return int(counted)


def empty_caches() -> None:
    """Empty all caches that have a limit."""
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper):
            if each.cache_parameters()["maxsize"] is not None:
                each.cache_clear()
        elif isinstance(each, LRUCache | FIFOCache):
            each.clear()


def tasks() -> dict[str, int]:
    """Return how many tasks run, by the function that each one began with, or by its widget."""
    return Counter(map(_name, asyncio.all_tasks()))


def _name(task: asyncio.Task[Any]) -> str:
    if task.get_name().startswith("message pump"):
        return task.get_name()
    return getattr(task.get_coro(), "__qualname__", str(task))


async def main() -> int:
    """Run the console; at its end tell which tasks it has left."""
    where, pipe = sys.argv[1:]
    ours = socket.socket(fileno=int(pipe))
    app = app_for("fleet", where)
    assert isinstance(app, ConsoleApp)
    before = tasks()
    app.in_background(Watch(app, ours.dup()).answer())  # a fault of it ends the console
    await app.run_async()
    ours.setblocking(True)
    ours.sendall(json.dumps({"left": dict(Counter(tasks()) - Counter(before))}).encode() + b"\n")
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
