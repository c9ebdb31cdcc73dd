"""From real pipes to the log file and to records."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dorad.logs.capture import TAIL_LINES
from dorad.logs.excerpt import MAX_CHARACTERS
from dorad.logs.paths import files_of
from dorad.logs.staging import MAX_LINE
from tests.logs.captured import Captured, in_files


@pytest.fixture
async def captured(tmp_path: Path) -> AsyncIterator[Captured]:
    with Captured(tmp_path) as made:
        yield made


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_lines_arrive_in_order_with_node_and_stream(captured: Captured) -> None:
    os.write(captured.err, b"a\nb\n")
    captured.close()
    assert await captured.until_closed() == ["a", "b"]
    found = {(r.node, r.stream, r.level) for r in captured.records}
    assert found == {("cam", "stderr", "stdout")}


async def test_both_streams_go_to_one_file(captured: Captured) -> None:
    os.write(captured.out, b"a\n")
    os.write(captured.err, b"b\n")
    captured.close()
    await captured.until_closed()
    assert {(r.message, r.stream) for r in in_files(captured.folder)} == {
        ("a", "stdout"),
        ("b", "stderr"),
    }


async def test_a_last_line_without_newline_is_kept(captured: Captured) -> None:
    os.write(captured.out, b"a\nlast words")
    captured.close()
    assert await captured.until_closed() == ["a", "last words"]
    assert captured.written == ["a", "last words"]


async def test_the_descriptors_are_closed_at_the_end(captured: Captured) -> None:
    captured.close()
    await captured.until_closed()
    assert not is_open(captured.out_read)
    assert not is_open(captured.err_read)


async def test_finishing_reads_the_pipes_without_waiting(captured: Captured) -> None:
    os.write(captured.out, b"a\nb")
    captured.capture.finish()
    assert captured.messages == ["a", "b"]
    assert await captured.until_closed() == ["a", "b"]
    assert not is_open(captured.out_read)
    captured.capture.finish()


async def test_finishing_does_not_wait_for_a_grandchild_that_never_stops_writing(
    captured: Captured,
) -> None:
    with captured.written_by("/usr/bin/yes") as chatterer:
        await captured.first.wait()
        captured.capture.finish()
        assert not is_open(captured.out_read)
        # Its next write fails: the pipe has no reader.
        assert chatterer.wait(5) != 0


async def test_a_hundred_thousand_lines_arrive_whole_and_do_not_block_the_loop(
    captured: Captured,
) -> None:
    count = 100_000
    code = f"for n in range({count}): print('line', n)"
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    with captured.written_by(sys.executable, "-S", "-c", code):
        task = asyncio.create_task(others())
        messages = await captured.until_closed()
        task.cancel()
    assert messages == [f"line {n}" for n in range(count)]
    assert captured.written == messages
    assert turns > 10


async def test_bad_utf8_is_replaced_and_reported_once(captured: Captured) -> None:
    os.write(captured.err, "ein \ufffd allein\n".encode())
    os.write(captured.err, b"\xff\n")
    os.write(captured.err, b"\xfe\n")
    captured.close()
    await captured.until_closed()
    warnings = [record for record in captured.records if record.level == "warn"]
    assert [record.message for record in warnings] == [
        "stderr is not UTF-8; invalid bytes are shown as \ufffd"
    ]
    assert len(captured.records) == 4
    assert captured.written == captured.messages


async def test_a_line_over_a_mebibyte_is_cut(captured: Captured) -> None:
    data = b"x" * (MAX_LINE + 5) + b"\nnext\n"
    pipe = captured.out
    await asyncio.to_thread(_write_all, pipe, data)
    captured.close()
    first, second = await captured.until_closed()
    assert first == "x" * MAX_LINE + " … [line cut at 1 MiB]"
    assert second == "next"
    assert captured.written == [first, second]


def _write_all(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


async def test_the_tail_is_the_last_lines_of_stderr_as_they_were_written(
    captured: Captured,
) -> None:
    lines = [f"ERROR:root:{n}" for n in range(TAIL_LINES + 10)]
    os.write(captured.out, b"not this\n")
    os.write(captured.err, "\n".join(lines).encode())
    captured.close()
    await captured.until_closed()
    assert list(captured.capture.tail) == lines[10:]


async def test_of_long_lines_the_tail_has_the_beginnings(captured: Captured) -> None:
    await asyncio.to_thread(_write_all, captured.err, b"a\n" + b"x" * 900_000 + b"\n")
    captured.close()
    await captured.until_closed()
    assert list(captured.capture.tail) == ["a", "x" * MAX_CHARACTERS]


async def test_lines_below_min_log_level_are_neither_written_nor_passed_on(
    tmp_path: Path,
) -> None:
    with Captured(tmp_path, min_log_level="warn") as captured:
        os.write(captured.out, b"chatter\nWARNING:root:hot\n")
        os.write(captured.err, b"complaint\n")
        captured.close()
        await captured.until_closed()
        assert sorted(captured.messages) == ["complaint", "hot"]
        assert sorted(captured.written) == ["complaint", "hot"]
        raw = [line for batch in captured.batches for line in batch.raw]
        assert sorted(raw) == [b"WARNING:root:hot", b"chatter", b"complaint"]


async def test_a_full_file_is_rotated_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    with Captured(tmp_path, max_log_size=1000, max_rotated_files=3) as captured:
        os.write(captured.out, b"".join(b"line %03d\n" % n for n in range(100)))
        captured.close()
        await captured.until_closed()
        assert len(captured.messages) == 100
        assert files_of(tmp_path, "cam") == [
            tmp_path / "log_cam.3.jsonl",
            tmp_path / "log_cam.2.jsonl",
            tmp_path / "log_cam.1.jsonl",
            tmp_path / "log_cam.jsonl",
        ]
        assert captured.written == captured.messages[-len(captured.written) :]
        sizes = [(tmp_path / f"log_cam.{n}.jsonl").stat().st_size for n in (1, 2, 3)]
        assert all(1000 <= size < 1200 for size in sizes)


async def test_a_folder_that_cannot_be_written_does_not_stop_live_lines(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with Captured(tmp_path / "file") as captured:
        os.write(captured.out, b"a\nb\n")
        captured.close()
        assert await captured.until_closed() == ["a", "b"]
        ((level, text),) = captured.reported
        assert level == "error"
        assert "Not a directory" in text
