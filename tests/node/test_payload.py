"""Bytes that travel in a file beside a packet."""

import os

import pytest

from dorad.node.payload import pack, seal, unpack


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_bytes_come_out_as_they_went_in(size: int) -> None:
    value = os.urandom(size)
    descriptor = pack(value)
    assert unpack(descriptor, size) == value
    os.close(descriptor)


def test_too_many_bytes_are_not_read() -> None:
    descriptor = pack(b"")
    os.ftruncate(descriptor, 1 << 40)
    with pytest.raises(ValueError, match="more than the 100 allowed"):
        unpack(descriptor, 100)
    os.close(descriptor)


def test_what_could_block_is_not_read() -> None:
    """Neither a pipe nor a file of a file system whose content a kernel or a process makes up."""
    read, write = os.pipe()
    made_up = os.open("/proc/self/status", os.O_RDONLY)
    for descriptor in (read, made_up):
        with pytest.raises(ValueError, match="no file in memory"):
            unpack(descriptor, 100)
    for descriptor in (read, write, made_up):
        os.close(descriptor)


def test_a_sealed_file_can_be_read_and_not_changed() -> None:
    descriptor = pack(b"value")
    seal(descriptor)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"other", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    assert unpack(descriptor, 100) == b"value"
    os.close(descriptor)
