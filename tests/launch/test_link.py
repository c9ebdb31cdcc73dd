"""How long a process holder may take to start a process."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from dorad.launch.holder import link, wire
from dorad.launch.model import Command, LaunchError
from tests.harness.waiting import DEADLINE_S

TICK_S = 0.25


async def spawned(monkeypatch: pytest.MonkeyPatch, ticks: int) -> int:
    """Return the pid that a holder answers with after it has sent `ticks` other packets."""
    monkeypatch.setattr(link, "_SILENCE_SECONDS", 4 * TICK_S)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    holder = link.HolderLink(
        ours, lambda: None, lambda _words, _fds: None, lambda _pid: None, lambda _pid: None
    )
    holder.listen()
    sink = os.open(os.devnull, os.O_WRONLY)
    command = Command(argv=(sys.executable,), cwd=Path("/"), env={})
    spawning = asyncio.create_task(holder.spawn(command, sink, sink, "x"))
    try:
        for _ in range(ticks):
            await asyncio.sleep(TICK_S)
            theirs.send(b"busy")
        if ticks:
            nothing = wire.join_numbers(())
            theirs.send(b"spawned 1 77 1 %s 0" % nothing)
        return (await spawning).pid
    finally:
        os.close(sink)
        theirs.close()
        holder.close("the test has ended")


async def test_a_slow_holder_that_sends_something_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await spawned(monkeypatch, 6) == 77


async def test_a_silent_holder_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="it does not answer"):
        await spawned(monkeypatch, 0)


@pytest.mark.parametrize("turns", range(6))
async def test_a_start_that_is_cancelled_around_its_answer_leaves_no_process(turns: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    holder = link.HolderLink(
        ours, lambda: None, lambda _words, _fds: None, lambda _pid: None, lambda _pid: None
    )
    holder.listen()
    loop, sink = asyncio.get_running_loop(), os.open(os.devnull, os.O_WRONLY)
    command = Command(argv=(sys.executable,), cwd=Path("/"), env={})
    try:
        async with asyncio.timeout(DEADLINE_S):
            spawning = asyncio.create_task(holder.spawn(command, sink, sink, "x"))
            await loop.sock_recv(theirs, 1000)
            theirs.send(b"spawned 1 77 1 %s 0" % wire.join_numbers(()))
            for _ in range(turns):
                await asyncio.sleep(0)
            spawning.cancel()
            await asyncio.wait((spawning,))
            if spawning.cancelled():
                assert await loop.sock_recv(theirs, 1000) == b"signal 77 9"
            else:
                assert spawning.result().pid == 77
    finally:
        os.close(sink)
        theirs.close()
        holder.close("the test has ended")
