"""Bytes that travel in a file beside a packet."""

import os
from pathlib import Path

import pytest

from dorad.node.payload import pack, unpack


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_bytes_come_out_as_they_went_in(size: int) -> None:
    value = os.urandom(size)
    descriptor = pack(value)
    assert unpack(descriptor, size) == value
    os.close(descriptor)


def test_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with path.open("rb") as file, pytest.raises(ValueError, match="more than the 100 allowed"):
        unpack(file.fileno(), 100)


def test_what_could_block_is_not_read() -> None:
    read, write = os.pipe()
    with pytest.raises(ValueError, match="no file"):
        unpack(read, 100)
    os.close(read)
    os.close(write)
