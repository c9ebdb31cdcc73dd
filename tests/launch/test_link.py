"""How long the parent of all processes may take to start one."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from dorad.launch import link, wire
from dorad.launch.model import Command, LaunchError

TICK_S = 0.25


async def asked(monkeypatch: pytest.MonkeyPatch, ticks: int) -> int:
    """Return the pid that a parent answers with, which before says something else `ticks` times."""
    monkeypatch.setattr(link, "_SILENCE_SECONDS", 4 * TICK_S)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = link.Link(ours, "parent", lambda: None, lambda _words, _fds: None)
    parent.listen()
    sink = os.open(os.devnull, os.O_WRONLY)
    command = Command(argv=(sys.executable,), cwd=Path("/"), env={})
    spawning = asyncio.create_task(parent.spawn(command, sink, sink, "x"))
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
        parent.close("the test has ended")


async def test_a_parent_that_is_heard_of_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked(monkeypatch, 6) == 77


async def test_a_silent_parent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="it does not answer"):
        await asked(monkeypatch, 0)
