"""Run one command of a build and relay its output line by line."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.launch.holder.client import HolderClient
    from dorad.launch.model import Command, Exit

CHUNK = 1 << 16
DRAIN_S = 1.0
"""Seconds to wait for output after a command's end: a background process may hold the pipe."""


async def run_command(holder: HolderClient, command: Command, show: Callable[[str], None]) -> Exit:
    """Run a command, pass its output to `show` by line, and return how it ended.

    Cancelling kills it and its children.

    Raises:
        LaunchError: it cannot be started.
    """
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        try:
            process = await holder.spawn(command, writing, writing)
        finally:
            os.close(writing)
        relay = asyncio.create_task(_relay(reader, show))
        ending = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({ending, relay}, return_when=asyncio.FIRST_COMPLETED)
            if relay.done():
                relay.result()  # raises if the output cannot be written
            end = await ending
            await asyncio.wait({relay}, timeout=DRAIN_S)
        finally:
            relay.cancel()
            ending.cancel()
    finally:
        transport.close()
    return end


async def _relay(reader: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Pass on the lines that are not empty. A carriage return ends a line, too."""
    rest = b""
    while chunk := await reader.read(CHUNK):
        *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
        for line in filter(None, lines):
            write(visible(line.decode(errors="replace")))
    if rest:
        write(visible(rest.decode(errors="replace")))
