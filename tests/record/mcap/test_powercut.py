"""After a power cut, what was synced is in the recovered file; of the rest, any block may be.

`POWER_CUTS=100000` simulates more of them.
"""

import os
import random

import pyarrow as pa
import pytest

from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import RecoveryError, recover
from tests.record.files import write
from tests.record.mcap.test_recovery import chunks_of

CUTS = int(os.environ.get("POWER_CUTS", "150"))
BLOCK = 64
"""Bytes that the disk writes at once: small, so that a small file has many of them."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A recording of small and large messages, without compression, which would hide blocks."""
    lines = [("a/b", n, pa.array([n] * (40 if n % 3 else 1)), {"n": n}) for n in range(40)]
    path = tmp_path_factory.mktemp("power") / "whole.mcap"
    return write(path, lines, per_chunk=4, compression="none").read_bytes()


def after_cut(chance, data, synced):
    """Return what a disk may have of a file: all up to `synced`, then any blocks, or zeros."""
    size = chance.randint(synced, len(data))
    left = bytearray(data[:size])
    share = chance.choice((0.1, 0.5, 0.9, 1.0))
    for at in range(synced - synced % BLOCK, size, BLOCK):
        if chance.random() > share:
            begin, end = max(at, synced), min(at + BLOCK, size)
            left[begin:end] = bytes(end - begin)
    if chance.random() < 0.3:  # the size was written, the blocks were not
        left += bytes(chance.randint(1, 4 * BLOCK))
    return bytes(left)


def test_nothing_that_was_synced_is_lost_and_nothing_else_appears(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    chance = random.Random(os.environ.get("POWER_SEED", "1"))
    path = tmp_path / "a.mcap"
    ends = chunks_of(whole)
    for _ in range(CUTS):
        synced_chunks = chance.randint(0, len(ends))
        synced = ends[synced_chunks - 1] if synced_chunks else 100
        path.write_bytes(after_cut(chance, whole, synced))
        try:
            done = recover(path)
        except RecoveryError:
            assert synced_chunks == 0
            continue
        assert done.messages >= 4 * synced_chunks
        with RecordingReader(path) as reader:
            assert not reader.problems
            found = [message.decode().metadata["n"] for message in reader.messages()]
        assert found == sorted(set(found))
        assert found[: 4 * synced_chunks] == list(range(4 * synced_chunks))
        assert set(found) <= set(range(40))
