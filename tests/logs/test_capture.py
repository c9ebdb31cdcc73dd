"""From a real pipe to records."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dorad.logs.capture import TAIL_LINES, Capture
from dorad.logs.lines import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dorad.logs.record import LogRecord


class Pipe:
    """A captured pipe: write to it, look at what came out."""

    def __init__(self) -> None:
        read, self.write_fd = os.pipe()
        self.read_fd = read
        self.records: list[LogRecord] = []
        self.first = asyncio.Event()
        self.capture = Capture(read, "cam", "stderr", self._sink)

    def _sink(self, records: Sequence[LogRecord]) -> None:
        self.records += records
        self.first.set()

    def written_by(self, *argv: str) -> subprocess.Popen[bytes]:
        """A process whose stdout is the pipe; nobody else writes to it any more."""
        process = subprocess.Popen(argv, stdout=self.write_fd)
        self.close()
        return process

    def write(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    def close(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    async def until_closed(self) -> list[str]:
        async with asyncio.timeout(30):
            await self.capture.wait_closed()
        return [record.message for record in self.records]


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()
    pipe.capture.finish()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_lines_arrive_in_order_with_node_and_stream(pipe: Pipe) -> None:
    pipe.write(b"a\nb\n")
    pipe.close()
    assert await pipe.until_closed() == ["a", "b"]
    assert {(r.node, r.stream, r.level) for r in pipe.records} == {("cam", "stderr", "stdout")}


async def test_a_last_line_without_newline_is_kept(pipe: Pipe) -> None:
    pipe.write(b"a\nlast words")
    pipe.close()
    assert await pipe.until_closed() == ["a", "last words"]


async def test_the_descriptor_is_closed_at_the_end(pipe: Pipe) -> None:
    pipe.close()
    await pipe.until_closed()
    assert not is_open(pipe.read_fd)


async def test_finishing_reads_what_is_there_and_waits_for_nobody(pipe: Pipe) -> None:
    pipe.write(b"a\nb")
    pipe.capture.finish()
    assert [record.message for record in pipe.records] == ["a", "b"]
    assert await pipe.until_closed() == ["a", "b"]
    assert not is_open(pipe.read_fd)
    pipe.capture.finish()


async def test_finishing_does_not_wait_for_a_grandchild_that_never_stops_writing() -> None:
    pipe = Pipe()
    with pipe.written_by("/usr/bin/yes") as chatterer:
        await pipe.first.wait()
        pipe.capture.finish()
        assert not is_open(pipe.read_fd)
        # Its next write fails: nobody reads any more.
        assert chatterer.wait(5) != 0


async def test_a_hundred_thousand_lines_arrive_whole_and_leave_room_for_others() -> None:
    pipe = Pipe()
    count = 100_000
    code = f"for n in range({count}): print('line', n)"
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    with pipe.written_by(sys.executable, "-S", "-c", code):
        task = asyncio.create_task(others())
        messages = await pipe.until_closed()
        task.cancel()
    assert messages == [f"line {n}" for n in range(count)]
    assert turns > 10


async def test_bad_utf8_is_replaced_and_said_once(pipe: Pipe) -> None:
    pipe.write("ein \ufffd allein\n".encode())
    pipe.write(b"\xff\n")
    pipe.write(b"\xfe\n")
    pipe.close()
    await pipe.until_closed()
    warnings = [record for record in pipe.records if record.level == "warn"]
    assert [record.message for record in warnings] == [
        "stderr is not UTF-8; what cannot be read is shown as \ufffd"
    ]
    assert len(pipe.records) == 4


async def test_a_line_over_a_mebibyte_is_cut(pipe: Pipe) -> None:
    data = b"x" * (MAX_LINE + 5) + b"\nnext\n"
    await asyncio.gather(asyncio.to_thread(pipe.write, data), asyncio.sleep(0))
    pipe.close()
    first, second = await pipe.until_closed()
    assert first == "x" * MAX_LINE + " … [line cut at 1 MiB]"
    assert second == "next"


async def test_the_tail_is_the_last_lines_as_they_were_written(pipe: Pipe) -> None:
    lines = [f"ERROR:root:{n}" for n in range(TAIL_LINES + 10)]
    pipe.write("\n".join(lines).encode())
    pipe.close()
    await pipe.until_closed()
    assert list(pipe.capture.tail) == lines[10:]
