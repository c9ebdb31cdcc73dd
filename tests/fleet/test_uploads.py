"""The folder of uploaded releases: kills at each change, full disks, collection."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import asyncssh
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from dorad.release import frames, objects
from dorad.release.connection import receive_over
from dorad.release.errors import ReleaseError
from dorad.release.machine import Machine
from dorafleet.cli.releaseupload import machine
from dorafleet.coordinator.keptreleases import RECENT_S, needed_by, stays
from dorafleet.release import uploads as uploads_module
from dorafleet.release.socketline import lines_over
from dorafleet.release.transfer import TransferOptions, send
from dorafleet.release.uploads import ARRIVING_S, MAX_ARRIVING, Uploads
from dorafleet.rollout.model import Member, Rollout
from dorafleet.rollout.strategy import Strategy
from tests.release.samples import FLOW, object_of, release
from tests.release.test_receive import END, Transfer, opening, plain

DEADLINE_S = 280.0
MODEL = os.urandom(400_000)
ONE = release({"dataflow.yml": FLOW, "model.bin": MODEL})
TWO = release({"dataflow.yml": FLOW, "model.bin": b"2" * 1000}, sequence=2)
WHOLE = opening(ONE) + plain(FLOW) + plain(MODEL) + END


class Arriving:
    """What `Transfer` sends to."""

    def __init__(self, uploads, found):
        self.trees = uploads.destination(found.id)


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "uploads")


def receive(uploads, found, sent):
    return Transfer(Arriving(uploads, found), sent)


def has(uploads, found):
    return any(each.release == found.id and each.complete for each in uploads.kept())


def test_what_has_arrived_before_a_cut_is_kept_and_counts_only_when_all_is_there(uploads):
    cut = opening(ONE) + plain(FLOW) + plain(MODEL)[:200_000]
    assert receive(uploads, ONE, cut).error is not None
    (kept,) = uploads.kept()
    assert (kept.complete, kept.lacking) == (False, len(MODEL))
    uploads.collect(set())  # the upload may be continued
    arrived = uploads.store.objects.partial_size(object_of(MODEL).sha256)
    assert arrived > 0
    rest = plain(MODEL, arrived - arrived % (128 << 10))
    assert receive(uploads, ONE, opening(ONE) + rest + END).error is None
    assert has(uploads, ONE)
    assert uploads.used() == len(FLOW) + len(MODEL)


def test_a_disk_that_fills_up_in_the_middle_is_reported_and_the_upload_continues_later(
    uploads, monkeypatch
):
    written = []

    def write(self, content, real=objects._Writer.write):
        written.append(len(content))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(objects._Writer, "write", write)
        done = receive(uploads, ONE, WHOLE)
    assert done.refusal.code == "space"
    assert "is full" in done.refusal.message
    assert uploads.store.objects.partials() == {}
    assert not has(uploads, ONE)
    rest = opening(ONE) + plain(MODEL) + END
    assert receive(uploads, ONE, rest).error is None
    assert has(uploads, ONE)


@pytest.mark.parametrize("change", ["sync_file_system", "write_whole"])
def test_a_disk_that_is_full_at_the_last_write_makes_no_release(uploads, monkeypatch, change):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads_module, change, full)
    assert receive(uploads, ONE, WHOLE).refusal.code == "space"
    assert not has(uploads, ONE)


def test_room_for_the_database_stays_free_and_the_limit_counts_what_is_there(uploads, monkeypatch):
    assert receive(uploads, ONE, WHOLE).error is None
    small = Uploads(uploads.folder, limit=len(FLOW) + len(MODEL) + 500)
    two = opening(TWO) + plain(b"2" * 1000) + END
    refusal = receive(small, TWO, two).refusal
    assert (refusal.code, "would exceed" in refusal.message) == ("space", True)
    assert receive(small, ONE, opening(ONE) + END).error is None  # nothing more is needed

    blocks = (uploads_module.RESERVE + 1000) // 4096
    full = os.statvfs_result((4096, 4096, 9 << 20, blocks, blocks, 1000, 1000, 1000, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(uploads_module.os, "statvfs", lambda _: full)
        refusal = receive(uploads, TWO, two).refusal
    assert (refusal.code, "stay free" in refusal.message) == ("space", True)
    assert receive(uploads, TWO, two).error is None


def test_an_unsigned_or_another_release_is_refused_before_anything_is_written(uploads):
    unsigned = release({"dataflow.yml": FLOW, "model.bin": MODEL}, sequence=3)
    unsigned.signature = ONE.signature
    assert receive(uploads, unsigned, opening(unsigned)).refusal.code == "signer"
    assert receive(uploads, TWO, opening(ONE)).refusal.code == "manifest"
    assert uploads.kept() == []


def test_a_second_upload_at_the_same_time_is_told_so(uploads, monkeypatch):
    monkeypatch.setattr(uploads_module, "LOCK_TIMEOUT_S", 0.0)
    with uploads.lock(wait=False):
        assert receive(uploads, ONE, WHOLE).refusal.code == "busy"
        with pytest.raises(ReleaseError, match="in progress"):
            uploads.collect(set())


def test_a_collection_keeps_the_files_that_a_kept_release_shares(uploads):
    assert receive(uploads, ONE, WHOLE).error is None
    two = opening(TWO) + plain(b"2" * 1000) + END
    assert receive(uploads, TWO, two).error is None
    assert uploads.collect({ONE.id, TWO.id}) == 0
    assert uploads.collect({TWO.id}) == len(MODEL)
    assert [each.release for each in uploads.kept()] == [TWO.id]
    assert uploads.store.check(uploads.store.find(TWO.id)) == 2


def test_interrupted_uploads_are_given_up_after_a_day_and_beyond_a_number(uploads, monkeypatch):
    begun = [release({"dataflow.yml": FLOW}, sequence=each) for each in range(MAX_ARRIVING + 3)[1:]]
    for each in begun:
        assert receive(uploads, each, opening(each)).error is not None
        time.sleep(0.002)  # so that their times differ
    uploads.collect(set())
    assert {each.release for each in uploads.kept()} == {each.id for each in begun[-MAX_ARRIVING:]}
    later = time.time() + ARRIVING_S + 60.0
    monkeypatch.setattr(uploads_module.time, "time", lambda: later)
    uploads.collect(set())
    assert uploads.kept() == []


def test_a_damaged_manifest_or_file_is_seen_and_does_not_count(uploads):
    assert receive(uploads, ONE, WHOLE).error is None
    path = uploads.store.objects.path(object_of(MODEL))
    path.unlink()
    assert not has(uploads, ONE)
    assert receive(uploads, ONE, opening(ONE) + plain(MODEL) + END).error is None
    assert has(uploads, ONE)
    manifest = uploads.store.manifests / ONE.id
    manifest.write_bytes(b"{")
    assert not has(uploads, ONE)
    uploads.collect({ONE.id})
    assert uploads.kept() == []
    assert uploads.used() == 0


@pytest.mark.parametrize("count", [10_000_000, 2])
async def test_a_coordinator_that_asks_for_endlessly_many_files_gets_nothing(uploads, count):
    """More than a frame has, or one file again and again."""
    assert receive(uploads, ONE, WHOLE).error is None
    bundle = uploads.store.find(ONE.id)
    model = frames.Lacking(object_of(MODEL).sha256, False)
    offer = frames.frame(frames.OFFER, frames.Offer([model] * 2, Machine("", "", ""), []))
    entry = len(msgspec.json.encode(model)) + 1
    huge = frames.HEADER.pack(frames.OFFER, count * entry) + bytes(1000)
    received = []

    async def accept(connection):
        await connection.send(offer if count == 2 else huge)
        async for message in connection:
            received.append(len(message))

    async with serve(accept, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]

        @asynccontextmanager
        async def line(_machine):
            async with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
                yield connection

        options = TransferOptions(delays=(), patches=False)
        (outcome,) = await send(
            [machine()], bundle, uploads.store, options=options, lines=lines_over(line)
        )
    assert ("asks for" if count == 2 else "is too long") in outcome.error.message
    assert sum(received) < 10_000


async def test_the_rate_of_an_upload_is_bounded(uploads):
    ended = asyncio.get_running_loop().create_future()

    async def accept(connection):
        began = time.monotonic()
        await receive_over(connection, uploads.destination(ONE.id), rate=1 << 20)
        ended.set_result(time.monotonic() - began)

    async with serve(accept, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as line:
            for at in range(0, len(WHOLE), 1 << 16):
                await line.send(WHOLE[at : at + (1 << 16)])
            # Random content cannot be compressed.
            assert await ended > 0.8 * len(MODEL) / (1 << 20)
    assert has(uploads, ONE)


def member(robot, before=""):
    return Member(robot=robot, batch=0, before=before)


def rollout(number, release_id, *, over):
    return Rollout(
        number=number,
        dataflow="pick",
        release=release_id,
        name="pick@1",
        strategy=Strategy(),
        size=1,
        by="ann",
        created=0.0,
        over=over,
    )


def test_what_a_rollout_an_order_or_a_way_back_needs_stays_with_the_reason():
    members = [member("arm1", "one"), member("arm2", "one"), member("arm3")]
    needed = needed_by(
        [("arm1", "two"), ("arm2", "two"), ("arm9", "")],
        [(rollout(4, "three", over=False), members), (rollout(3, "two", over=True), [])],
    )
    assert needed == {
        "three": "rollout 4",
        "two": "desired on arm1, arm2",
        "one": "arm1, arm2 would go back to it",
    }
    now = 1e9
    assert stays("one", 0.0, needed, now)
    assert stays("else", now - RECENT_S + 1, needed, now)
    assert not stays("else", now - RECENT_S - 1, needed, now)
    assert stays("else", now + RECENT_S - 1, needed, now)  # a clock was ahead
    assert not stays("else", now + RECENT_S + 1, needed, now)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_kill_at_any_change_leaves_whole_releases_and_the_next_upload_completes(tmp_path):
    key = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(key)
    key.chmod(0o600)
    words = ["-m", "tests.fleet.killeduploads", str(tmp_path), str(key)]
    done = subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) > 10
    # The new release counts once its manifest is there, which is one of the last changes.
    killed = [step["killed"] for step in steps]
    assert killed == sorted(killed, key=len)
    assert ["pick@1"] in killed
    for step in steps:
        assert step["next"] == ["pick@1", "pick@2"]
        assert step["collecting"] in (["pick@1"], ["pick@1", "pick@2"])
        assert step["collected"] == ["pick@1"]
        assert step["left"] == steps[-1]["left"]
