"""A reader that is killed at any moment loses no line and writes none twice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.logs import staging
from dorad.logs.staging import Staging
from tests.harness.commands import succeeds
from tests.logs.captured import Captured, in_files


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("max_size", [0, 500], ids=["one file", "rotated"])
def test_a_kill_at_any_line_of_code_leaves_each_line_once_in_the_files(
    tmp_path: Path, max_size: int
) -> None:
    argv = [sys.executable, "-m", "tests.logs.dying", str(tmp_path), str(max_size)]
    out = succeeds(subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False))
    assert int(out) > 100


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = staging.create()
    yield descriptor
    os.close(descriptor)


def test_bytes_read_just_before_a_kill_are_found_by_their_length(memory: int) -> None:
    first = Staging(memory)
    read, write = os.pipe()
    os.write(write, b"a\n")
    first.stdout.read(read)
    # The kernel has copied this, and the process is killed before it has counted it.
    at = first.stdout._base() + first.stdout.filled
    first._view[at : at + 4] = b"b\0\0c"
    first.close()
    second = Staging(memory)
    assert second.stdout.recover() is None
    assert second.stdout.data() == b"a\nb\0\0c"
    assert second.stderr.recover() is None
    assert second.stderr.data() == b""
    second.close()
    os.close(read)
    os.close(write)


def test_old_bytes_are_never_mistaken_for_new_ones(memory: int) -> None:
    staged = Staging(memory)
    read, write = os.pipe()
    for size in (9000, 16000, 3, 12000):
        os.write(write, b"x" * (size - 1) + b"\n")
        staged.stdout.read(read)
        staged.stdout.recover()
        assert staged.stdout.filled == size
        staged.stdout.commit(size - 2, skipping=False)
        staged.stdout.recover()
        assert staged.stdout.data() == b"x\n"
        staged.stdout.commit(2, skipping=False)
    staged.close()
    os.close(read)
    os.close(write)


def test_memory_of_another_kind_is_refused() -> None:
    descriptor = os.memfd_create("other")
    with pytest.raises(ValueError, match="not sealed memory"):
        Staging(descriptor)
    os.close(descriptor)


async def test_a_half_written_batch_is_written_again(tmp_path: Path) -> None:
    with Captured(tmp_path) as captured:
        stage = captured.capture._staging.stdout
        os.write(captured.out, b"a\n")
        captured.file.write(b"", 0)
        stage.read(captured.out_read)
        stage.begin(0)
        captured.file.write(b'{"ts":"2026-', 1)
        size = stage.recover()
        assert size == 0
        captured.file.cut_to(size)
        captured.close()
        await captured.until_closed()
    assert [record.message for record in in_files(tmp_path)] == ["a"]
