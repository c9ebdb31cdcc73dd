"""The thread that writes live log lines."""

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import TextIO

import pytest

from dorad.cli import live
from dorad.logrecord import LogRecord
from dorad.logs.filter import LogFilter
from tests.harness.waiting import DEADLINE_S


def record(text: str) -> LogRecord:
    return LogRecord(0.0, "stdout", "node", text)


def log(stream: TextIO, on_broken: Callable[[], None] = lambda: None) -> live.LiveLog:
    made = live.LiveLog(live.writer(stream), lambda r: r.message, LogFilter())
    made.on_broken = on_broken
    return made


class Held(io.StringIO):
    """A terminal on hold until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.released.wait(DEADLINE_S)
        return super().write(text)


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class Full(io.StringIO):
    """A file on a disk that is full for the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()

    def write(self, text: str) -> int:
        if "first" in text:
            self.refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_full_disk_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Full()
    broken = threading.Event()
    warned = "warning: cannot write the output: No space left on device; the dataflow runs on\n"
    with log(stream, broken.set) as lines:
        lines.take([record("first")])
        assert stream.refused.wait(DEADLINE_S)
        lines.take([record("second")])
    assert stream.getvalue() == "second\n"
    assert not broken.is_set()
    last = "warning: lines of the output that could not be written: 1\n"
    assert capsys.readouterr().err == warned + last


def test_lines_are_written_in_order_to_the_last() -> None:
    stream = io.StringIO()
    with log(stream) as lines:
        for number in range(100):
            lines.take([record(str(number))])
    assert stream.getvalue().split() == [str(number) for number in range(100)]


def test_a_paused_terminal_does_not_block_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BACKLOG", 2)
    monkeypatch.setattr(live, "ROOM_TIMEOUT_S", 0.01)
    stream = Held()
    with log(stream) as lines:
        lines.take([record("first")])
        assert stream.reached.wait(DEADLINE_S)
        for word in ("a", "b", "c", "d"):
            lines.take([record(word)])
        stream.released.set()
        monkeypatch.setattr(live, "ROOM_TIMEOUT_S", DEADLINE_S)
        lines.take([record("last")])
    text = stream.getvalue().splitlines()
    assert text[:3] == ["first", "a", "b"]
    assert text[3:] == ["... 2 lines left out: output is too slow ...", "last"]


def test_a_closed_pipe_is_reported_once() -> None:
    broken = threading.Event()
    with log(Broken(), broken.set) as lines:
        lines.take([record("a")])
        assert broken.wait(DEADLINE_S)
        lines.take([record("b")])


def test_quiet_writes_nothing() -> None:
    stream = io.StringIO()
    with live.LiveLog(live.writer(stream), lambda r: r.message, LogFilter(), quiet=True) as lines:
        lines.take([record("a")])
    assert stream.getvalue() == ""


def test_a_nonblocking_descriptor_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * (1 << 20)
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as stream:
        thread = threading.Thread(target=live.writer(stream), args=(text,))
        thread.start()
        assert reader.read(len(text)) == text
        thread.join(DEADLINE_S)
