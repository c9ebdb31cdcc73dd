"""Rights to shared memory: what each process can do with the descriptors it receives."""

import fcntl
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from dorad.shm import check, create
from dorad.shm.mapping import Mapping

SIZE = 1 << 16
SEAL_WRITE = fcntl.F_SEAL_WRITE

REOPEN = """
import os, sys
descriptor = int(sys.argv[1])
for attempt in (
    lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR),
    lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_TRUNC),
    lambda: os.truncate(f"/proc/self/fd/{descriptor}", 0),
    lambda: os.ftruncate(descriptor, 0),
    lambda: os.write(descriptor, b"x"),
    lambda: os.fchmod(descriptor, 0o600),
):
    try:
        attempt()
    except OSError:
        continue
    sys.exit("it could be written")
"""
"""A program that tries all ways to write to the memory behind a received descriptor."""


@pytest.fixture(params=["posix_ipc", "open"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create pools by each of the two ways; a Python without wheels of posix_ipc has the second."""
    if request.param == "open":
        monkeypatch.setattr(create, "posix_ipc", None)
    elif create.posix_ipc is None:
        pytest.skip("posix_ipc is not installed")


@contextmanager
def closing(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_no_process_can_shrink_grow_or_seal_a_mailbox() -> None:
    memory = create.create_mailbox(SIZE, room=4 * SIZE)
    with closing(memory):
        assert os.fstat(memory).st_size == 4 * SIZE
        for size in (0, SIZE, 8 * SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(memory, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEAL_WRITE)
        with pytest.raises(PermissionError):
            os.posix_fallocate(memory, 0, 8 * SIZE)
        check.check_memory("its mailbox", memory, 4 * SIZE)


def test_a_mailbox_whose_pages_were_removed_can_still_be_used() -> None:
    memory = create.create_mailbox(SIZE)
    with closing(memory):
        mapping = Mapping(memory)
        mapping.words[0] = 7
        mapping.memory.madvise(mmap.MADV_REMOVE)
        assert mapping.words[0] == 0
        mapping.words[0] = 8
        assert Mapping(memory).words[0] == 8


def test_a_mailbox_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(create.ShmFullError, match="the machine's memory is full"):
        create.create_mailbox(1 << 45)


@pytest.mark.usefixtures("way")
def test_receivers_of_a_pool_read_what_its_owner_writes_and_cannot_write() -> None:
    pool = create.create_pool(SIZE)
    with closing(*pool):
        owner = Mapping(pool.owner)
        receiver = Mapping(pool.receiver, writable=False)
        owner.memory[:5] = b"hello"
        assert receiver.memory[:5] == b"hello"
        assert receiver.words.readonly
        with pytest.raises(PermissionError):
            mmap.mmap(pool.receiver, SIZE)
        with pytest.raises(OSError, match=r"Invalid argument|not permitted"):
            os.ftruncate(pool.receiver, 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(pool.receiver, b"x", 0)


@pytest.mark.usefixtures("way")
def test_arrays_over_received_memory_cannot_be_changed() -> None:
    pool = create.create_pool(SIZE)
    with closing(*pool):
        receiver = Mapping(pool.receiver, writable=False)
        buffer = pa.py_buffer(receiver.memory)
        assert not buffer.is_mutable
        array = pa.Array.from_buffers(pa.int64(), 10, [None, buffer])
        assert not array.to_numpy().flags.writeable
        with pytest.raises(ValueError, match=r"WRITEABLE"):
            array.to_numpy().flags.writeable = True


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a process of another user")
@pytest.mark.parametrize("kind", ["pool", "texts"])
@pytest.mark.usefixtures("way")
def test_a_process_of_another_user_cannot_reopen_received_memory_for_writing(kind: str) -> None:
    if kind == "pool":
        descriptors = tuple(create.create_pool(SIZE))
    else:
        descriptors = (create.create_texts(SIZE)[0],)
    with closing(*descriptors):
        tried = subprocess.run(
            ["/usr/bin/env", "python3", "-c", REOPEN, str(descriptors[-1])],
            pass_fds=[descriptors[-1]],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        assert tried.returncode == 0, tried.stderr
        assert os.fstat(descriptors[-1]).st_size == SIZE


def test_only_the_daemon_can_write_its_texts() -> None:
    memory, mapping = create.create_texts(SIZE)
    with closing(memory):
        mapping.memory[:4] = b"text"
        assert Mapping(memory, writable=False).memory[:4] == b"text"
        with pytest.raises(PermissionError):
            mmap.mmap(memory, SIZE)
        with pytest.raises(PermissionError):
            os.pwrite(memory, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(memory, 0)
        again = os.open(f"/proc/self/fd/{memory}", os.O_RDWR)
        with closing(again), pytest.raises(PermissionError):
            mmap.mmap(again, SIZE)


def names() -> set[str]:
    """Segments of this process that have a name in /dev/shm."""
    return {path.name for path in Path("/dev/shm").glob(f"*{os.getpid()}-*")}


@pytest.mark.usefixtures("way")
def test_a_pool_leaves_no_name() -> None:
    with closing(*create.create_pool(SIZE)):
        assert not names()
    with pytest.raises(create.ShmFullError):
        create.create_pool(1 << 45)
    assert not names()


@pytest.mark.usefixtures("way")
def test_no_program_inherits_a_pool_by_itself() -> None:
    pool = create.create_pool(SIZE)
    with closing(*pool):
        assert not any(map(os.get_inheritable, pool))
        assert os.fstat(pool.owner).st_mode & 0o777 == 0o400


@pytest.mark.usefixtures("way")
def test_a_segment_that_exists_already_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create.os, "urandom", lambda size: b"1" * size)
    taken = Path(f"/dev/shm/dorad-{os.getpid()}-{(b'1' * 8).hex()}")
    taken.touch()
    try:
        with pytest.raises(Exception, match="exist"):
            create.create_pool(SIZE)
        assert taken.stat().st_size == 0
    finally:
        taken.unlink(missing_ok=True)


def test_memory_that_is_not_a_mailbox_of_the_right_size_is_refused() -> None:
    plain = os.memfd_create("plain")
    os.ftruncate(plain, SIZE)
    mailbox = create.create_mailbox(SIZE)
    pool = create.create_pool(SIZE)
    read, write = os.pipe()
    bell = os.eventfd(0)
    with closing(plain, mailbox, *pool, read, write, bell):
        check.check_memory("its mailbox", mailbox, SIZE)
        check.check_segment(pool.receiver, SIZE)
        check.check_bell(bell)
        for wrong in (plain, pool.owner, pool.receiver, read, bell):
            with pytest.raises(ValueError, match="not sealed memory"):
                check.check_memory("its mailbox", wrong, SIZE)
        for wrong in (plain, pool.owner, mailbox, read, bell):
            with pytest.raises(ValueError, match="not read-only memory"):
                check.check_segment(wrong, SIZE)
        for wrong in (plain, mailbox, read):
            with pytest.raises(ValueError, match="its doorbell is"):
                check.check_bell(wrong)
        with pytest.raises(ValueError, match=f"{SIZE} bytes instead of {SIZE + 1}"):
            check.check_memory("its mailbox", mailbox, SIZE + 1)
        os.ftruncate(pool.owner, 0)
        with pytest.raises(ValueError, match=f"0 bytes instead of {SIZE}"):
            check.check_segment(pool.receiver, SIZE)
