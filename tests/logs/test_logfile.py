"""One log file: whole lines, rotation, and what happens when it cannot be written."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.logs.logfile import RETRY_S, LogFile, Trouble
from dorad.logs.parts import close_parts, open_parts
from dorad.logs.paths import files_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class LogFixture:
    """A log file, and the trouble reported about it."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.clock = Clock()
        self.reports: list[tuple[str, str]] = []
        self.trouble = Trouble(lambda level, text: self.reports.append((level, text)), self.clock)
        self.file = LogFile(folder, "cam", self.trouble, **options)
        self.folder = folder

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in files_of(self.folder, "cam")]


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[LogFixture]:
    made = LogFixture(tmp_path)
    yield made
    made.file.close()


def test_the_first_line_creates_the_file_and_its_folder(tmp_path: Path) -> None:
    facts = LogFixture(tmp_path / "out" / "id")
    assert not facts.folder.exists()
    facts.file.write(b"a\n", 1)
    facts.file.close()
    assert facts.contents() == [b"a\n"]


def test_a_file_that_is_there_is_continued(facts: LogFixture) -> None:
    facts.file.path.write_bytes(b"before\n")
    facts.file.write(b"a\n", 1)
    assert facts.contents() == [b"before\na\n"]


def test_a_deleted_file_is_created_again(facts: LogFixture) -> None:
    facts.file.write(b"a\n", 1)
    facts.file.path.unlink()
    facts.file.write(b"b\n", 1)
    assert facts.contents() == [b"b\n"]


def test_rotation_keeps_a_limited_number_of_files(tmp_path: Path) -> None:
    facts = LogFixture(tmp_path, max_size=2, max_rotated=2)
    for letter in (b"a\n", b"b\n", b"c\n", b"d\n"):
        facts.file.write(letter, 1)
    facts.file.close()
    assert facts.contents() == [b"b\n", b"c\n", b"d\n"]


def test_an_interrupted_rotation_is_completed(tmp_path: Path) -> None:
    """The process died between two renames: the first name is free and stays the only gap."""
    (tmp_path / "log_cam.2.jsonl").write_bytes(b"old\n")
    (tmp_path / "log_cam.jsonl").write_bytes(b"new\n")
    facts = LogFixture(tmp_path, max_size=2, max_rotated=2)
    facts.file.write(b"a\n", 1)
    facts.file.close()
    assert facts.contents() == [b"old\n", b"new\n", b"a\n"]


def test_the_file_of_a_node_named_like_a_rotated_file_is_not_touched(
    tmp_path: Path,
) -> None:
    (tmp_path / "log_cam.1.jsonl").write_bytes(b"of cam.1\n")
    facts = LogFixture(tmp_path, max_size=2, max_rotated=1, others=["cam", "cam.1"])
    facts.file.write(b"a\n", 1)
    facts.file.write(b"b\n", 1)
    facts.file.close()
    assert (tmp_path / "log_cam.1.jsonl").read_bytes() == b"of cam.1\n"
    assert (tmp_path / "log_cam.2.jsonl").read_bytes() == b"a\n"


def test_bytes_appended_twice_are_cut(facts: LogFixture) -> None:
    facts.file.write(b"a\nb\n", 2)
    facts.file.cut_to(2)
    facts.file.write(b"c\n", 1)
    facts.file.cut_to(100)
    assert facts.contents() == [b"a\nc\n"]


@pytest.fixture
def nearly_full() -> Iterator[None]:
    """Limit files to 10 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("nearly_full")
def test_a_line_that_does_not_fit_on_the_disk_leaves_no_bytes(facts: LogFixture) -> None:
    facts.file.write(b"12345\n", 1)
    facts.file.write(b"too long\nfor it\n", 2)
    ((level, text),) = facts.reports
    assert level == "error"
    assert "File too large" in text
    assert str(facts.file.path) in text
    assert facts.trouble.text is not None
    assert facts.contents() == [b"12345\n"]


@pytest.mark.usefixtures("nearly_full")
def test_trouble_is_reported_once_and_its_end_with_the_number_of_missing_lines(
    facts: LogFixture,
) -> None:
    facts.file.write(b"more than there is room for\n", 1)
    facts.file.write(b"x\n", 1)  # no attempt yet
    facts.clock.now += RETRY_S
    facts.file.write(b"still too much for it\n", 1)
    assert len(facts.reports) == 1
    facts.clock.now += RETRY_S
    facts.file.write(b"y\n", 1)
    assert facts.reports[1:] == [("warn", "log files are written again; 3 lines are missing")]
    assert facts.trouble.text is None
    assert facts.contents() == [b"y\n"]


def test_at_the_end_only_lines_that_there_were_are_missing(facts: LogFixture) -> None:
    facts.trouble.failed(facts.file.path, OSError(errno.EROFS, "Read-only file system"))
    facts.trouble.end()
    assert len(facts.reports) == 1
    facts.trouble.missing(1)
    facts.trouble.end()
    assert facts.reports[1:] == [("error", "log files were not written; 1 line is missing")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_trouble_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    facts = LogFixture(tmp_path / "id")
    facts.file.write(b"a\n", 1)
    assert "Permission denied" in facts.reports[0][1]
    tmp_path.chmod(0o700)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [False, True], ids=["without a reader", "with a reader"])
def test_a_fifo_in_place_of_a_file_does_not_block(facts: LogFixture, read: bool) -> None:
    os.mkfifo(facts.file.path)
    reader = os.open(facts.file.path, os.O_RDWR) if read else -1
    for _ in range(10):
        facts.file.write(b"x" * 50_000 + b"\n", 1)
        facts.clock.now += 2 * RETRY_S
    assert facts.reports
    close_parts(open_parts(lambda: [facts.file.path]))
    if reader >= 0:
        os.close(reader)
