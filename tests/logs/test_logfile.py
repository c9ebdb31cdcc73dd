"""One log file: whole lines, rotation, and what happens when it cannot be written."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from dorad.logs.logfile import RETRY_S, LogFile, Trouble
from dorad.logs.parts import close_parts, open_parts
from dorad.logs.paths import files_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class NodeFacts:
    """A log file, and what is told about it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, str]] = []
        self.trouble = Trouble(lambda level, text: self.said.append((level, text)), self.clock)
        self.file = LogFile(folder, "cam", self.trouble, **options)  # type: ignore[arg-type]
        self.folder = folder

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in files_of(self.folder, "cam")]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[NodeFacts]:
    made = NodeFacts(tmp_path)
    yield made
    made.file.close()


def test_the_file_and_its_folder_are_made_by_the_first_line(tmp_path: Path) -> None:
    told = NodeFacts(tmp_path / "out" / "id")
    assert not told.folder.exists()
    told.file.write(b"a\n", 1)
    told.file.close()
    assert told.contents() == [b"a\n"]


def test_a_file_that_is_there_is_continued(told: NodeFacts) -> None:
    told.file.path.write_bytes(b"before\n")
    told.file.write(b"a\n", 1)
    assert told.contents() == [b"before\na\n"]


def test_a_file_that_somebody_deleted_is_begun_again(told: NodeFacts) -> None:
    told.file.write(b"a\n", 1)
    told.file.path.unlink()
    told.file.write(b"b\n", 1)
    assert told.contents() == [b"b\n"]


def test_rotation_keeps_so_many_files(tmp_path: Path) -> None:
    told = NodeFacts(tmp_path, max_size=2, max_rotated=2)
    for letter in (b"a\n", b"b\n", b"c\n", b"d\n"):
        told.file.write(letter, 1)
    told.file.close()
    assert told.contents() == [b"b\n", b"c\n", b"d\n"]


def test_a_rotation_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """Somebody died between two renames: the first place is free, nothing moves behind it."""
    (tmp_path / "log_cam.2.jsonl").write_bytes(b"old\n")
    (tmp_path / "log_cam.jsonl").write_bytes(b"new\n")
    told = NodeFacts(tmp_path, max_size=2, max_rotated=2)
    told.file.write(b"a\n", 1)
    told.file.close()
    assert told.contents() == [b"old\n", b"new\n", b"a\n"]


def test_the_file_of_a_node_that_is_called_like_a_rotated_one_is_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "log_cam.1.jsonl").write_bytes(b"of cam.1\n")
    told = NodeFacts(tmp_path, max_size=2, max_rotated=1, others=["cam", "cam.1"])
    told.file.write(b"a\n", 1)
    told.file.write(b"b\n", 1)
    told.file.close()
    assert (tmp_path / "log_cam.1.jsonl").read_bytes() == b"of cam.1\n"
    assert (tmp_path / "log_cam.2.jsonl").read_bytes() == b"a\n"


def test_what_was_appended_too_much_is_cut(told: NodeFacts) -> None:
    told.file.write(b"a\nb\n", 2)
    told.file.cut_to(2)
    told.file.write(b"c\n", 1)
    told.file.cut_to(100)
    assert told.contents() == [b"a\nc\n"]


@pytest.fixture
def nearly_full() -> Iterator[None]:
    """Files may have 10 bytes here, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("nearly_full")
def test_a_line_for_which_there_is_no_room_leaves_nothing_behind(told: NodeFacts) -> None:
    told.file.write(b"12345\n", 1)
    told.file.write(b"too long\nfor it\n", 2)
    ((level, text),) = told.said
    assert level == "error"
    assert "File too large" in text
    assert str(told.file.path) in text
    assert told.trouble.text is not None
    assert told.contents() == [b"12345\n"]


@pytest.mark.usefixtures("nearly_full")
def test_trouble_is_told_once_and_so_is_its_end_with_the_number_of_missing_lines(
    told: NodeFacts,
) -> None:
    told.file.write(b"more than there is room for\n", 1)
    told.file.write(b"x\n", 1)  # no attempt yet
    told.clock.now += RETRY_S
    told.file.write(b"still too much for it\n", 1)
    assert len(told.said) == 1
    told.clock.now += RETRY_S
    told.file.write(b"y\n", 1)
    assert told.said[1:] == [("warn", "log files are written again; 3 lines are missing")]
    assert told.trouble.text is None
    assert told.contents() == [b"y\n"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_trouble_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    told = NodeFacts(tmp_path / "id")
    told.file.write(b"a\n", 1)
    assert "Permission denied" in told.said[0][1]
    tmp_path.chmod(0o700)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [False, True], ids=["that nobody reads", "that a node reads"])
def test_a_fifo_in_the_place_of_a_file_blocks_nobody(told: NodeFacts, read: bool) -> None:
    os.mkfifo(told.file.path)
    reader = os.open(told.file.path, os.O_RDWR) if read else -1
    for _ in range(10):
        told.file.write(b"x" * 50_000 + b"\n", 1)
        told.clock.now += 2 * RETRY_S
    assert told.said
    close_parts(open_parts(lambda: [told.file.path]))
    if reader >= 0:
        os.close(reader)
