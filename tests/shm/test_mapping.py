"""What a mapping costs: a writer's pages are resident, a reader's and spare room are not."""

import os
from pathlib import Path

from dorad.shm.mapping import Mapping

PAGE = 4096


def _resident_kb(name: str) -> int:
    blocks = Path("/proc/self/smaps").read_text().split(name)
    assert len(blocks) == 2
    return int(blocks[1].split("Rss:")[1].split()[0])


def test_a_mapping_uses_memory_only_for_allocated_pages() -> None:
    name = f"dorad-test-{os.urandom(4).hex()}"
    memory = os.memfd_create(name)
    try:
        os.ftruncate(memory, 256 * PAGE)
        os.posix_fallocate(memory, 0, 2 * PAGE)
        mapping = Mapping(memory)
        assert mapping.size == 256 * PAGE
        assert _resident_kb(name) == 2 * PAGE // 1024
        os.posix_fallocate(memory, 2 * PAGE, PAGE)
        mapping.words[2 * PAGE // 8] = 7
        assert _resident_kb(name) == 3 * PAGE // 1024
        assert os.fstat(memory).st_blocks * 512 == 3 * PAGE
    finally:
        os.close(memory)


def test_a_reader_maps_pages_only_when_it_reads_them() -> None:
    name = f"dorad-test-{os.urandom(4).hex()}"
    memory = os.memfd_create(name)
    try:
        os.ftruncate(memory, 256 * PAGE)
        os.posix_fallocate(memory, 0, 256 * PAGE)
        mapping = Mapping(memory, writable=False)
        assert _resident_kb(name) == 0
        assert mapping.memory[100 * PAGE] == 0
        assert 0 < _resident_kb(name) < 128 * PAGE // 1024
    finally:
        os.close(memory)
