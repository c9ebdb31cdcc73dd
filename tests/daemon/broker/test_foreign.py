"""Descriptors that a node sent are closed in threads, which end when nothing is left to close."""

import asyncio
import os
import threading

import pytest

from dorad.daemon.broker import foreign
from tests.harness.waiting import until


def closing() -> int:
    """Return the number of threads that close descriptors."""
    return sum(each.name == "closing" for each in threading.enumerate())


@pytest.mark.long
async def test_closing_threads_end_however_they_race_for_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread whose descriptor another one took must not wait longer than it is idle."""
    monkeypatch.setattr(foreign, "IDLE_S", 0.002)
    stop = threading.Event()

    def hold_the_interpreter() -> None:
        while not stop.is_set():
            sum(range(1000))

    busy = [threading.Thread(target=hold_the_interpreter) for _ in range(2)]
    for thread in busy:
        thread.start()
    for round_ in range(60):
        for _ in range(foreign.MAX_THREADS):
            foreign.close_in_thread(os.open("/", os.O_RDONLY))
        await asyncio.sleep(round_ % 7 / 1000)  # so that threads are about to give up
    stop.set()
    for thread in busy:
        thread.join()
    await until(lambda: closing() == 0)
