"""Files of strangers: pipes, devices and large ones end at once."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dorad.boundedfile import read_bounded


def refusal(path: Path, limit: int = 100) -> OSError:
    with pytest.raises(OSError) as caught:
        read_bounded(path, limit)
    return caught.value


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert read_bounded(file, 100) == b"x" * 100
    error = refusal(file, 99)
    assert (error.errno, error.strerror) == (errno.EFBIG, "larger than 99 bytes")


def test_a_sparse_file_of_many_terabytes_fills_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    assert refusal(file, 8 << 20).strerror == "larger than 8 MB"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_not_read_also_through_a_link(device: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(device)
    for path in (Path(device), tmp_path / "link"):
        assert refusal(path).strerror == "not a regular file"


def test_a_pipe_without_a_writer_holds_up_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo").strerror == "not a regular file"
    with pytest.raises(OSError, match="not a regular file"):
        read_bounded(tmp_path / "fifo", 100, pipes=True)


def test_a_socket_and_a_folder_are_not_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket").errno == errno.ENXIO
    assert isinstance(refusal(tmp_path), IsADirectoryError)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
            refusal(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pipe_of_the_command_line_is_read_where_it_is_allowed() -> None:
    code = (
        "import sys; from pathlib import Path; from dorad.boundedfile import read_bounded\n"
        "print(read_bounded(Path(sys.argv[1]), 100, pipes=True))"
    )
    line = 'exec "$0" -c "$1" <(sleep 0.2; echo hello)'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "b'hello\\n'\n", done.stderr
