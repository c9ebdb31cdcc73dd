"""Payloads in sealed memory, sent with a packet."""

import os
from pathlib import Path

import pytest

from dorad.node.payload import pack, unpack


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_bytes_arrive_unchanged(size: int) -> None:
    value = os.urandom(size)
    descriptor = pack(value)
    assert unpack(descriptor, size) == value
    os.close(descriptor)


def test_too_many_bytes_are_not_read() -> None:
    descriptor = pack(bytes(101))
    with pytest.raises(ValueError, match="more than the 100 allowed"):
        unpack(descriptor, 100)
    os.close(descriptor)


def test_bytes_cannot_be_changed_on_their_way() -> None:
    descriptor = pack(b"value")
    for attempt in (
        lambda: os.pwrite(descriptor, b"other", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.posix_fallocate(descriptor, 0, 1 << 20),
    ):
        with pytest.raises(PermissionError):
            attempt()
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["pipe", "file", "memory", "eventfd", "device"])
def test_a_descriptor_that_could_block_or_change_is_not_read(kind: str, tmp_path: Path) -> None:
    """A file may lie in a file system whose server never answers."""
    path = tmp_path / "file"
    path.write_bytes(b"value")
    match kind:
        case "pipe":
            descriptors = os.pipe()
        case "file":
            descriptors = (os.open(path, os.O_RDONLY),)
        case "memory":
            descriptors = (os.memfd_create("value"),)
        case "eventfd":
            descriptors = (os.eventfd(0),)
        case _:
            descriptors = (os.open("/dev/null", os.O_RDONLY),)
    with pytest.raises(ValueError, match="not refer to sealed memory"):
        unpack(descriptors[0], 100)
    for descriptor in descriptors:
        os.close(descriptor)
