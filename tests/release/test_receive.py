"""What a robot takes from a sender, which may be hostile: only what it lacks, within bounds."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.release import frames, objects, receive
from dorad.release.errors import ReleaseError
from dorad.release.frames import Begin, Hello, Lacking, Offer, Refusal, frame
from dorad.release.manifest import MAX_MANIFEST
from dorad.release.receive import Receiver, SenderLostError
from tests.release.samples import FLOW, OTHER, object_of, release, sign

MODEL = random.Random(1).randbytes(300_000)


class Transfer:
    """A receiver that was sent all these bytes, and then the end; its answers."""

    def __init__(self, robot, content, *, silence=10.0, end=True):
        source, given_ = os.pipe()
        answers, target = os.pipe()
        writer = threading.Thread(target=self._write, args=(given_, content, end))
        writer.start()
        reader = threading.Thread(target=self._read, args=(answers,))
        reader.start()
        self.error = None
        self.answers = b""
        try:
            Receiver(robot.trees, source, target, silence=silence).run()
        except (ReleaseError, SenderLostError) as error:
            self.error = error
        finally:
            os.close(source)
            os.close(target)
            writer.join(10)
            if not end:
                os.close(given_)
            reader.join(10)

    def _write(self, number, content, end):
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(number, rest) :]
        except BrokenPipeError:
            pass
        if end:
            os.close(number)

    def _read(self, number):
        pieces = []
        while piece := os.read(number, 1 << 16):
            pieces.append(piece)
        os.close(number)
        self.answers = b"".join(pieces)

    @property
    def frames(self):
        found, rest = [], self.answers
        while rest:
            kind, size = frames.HEADER.unpack(rest[: frames.HEADER.size])
            found.append((kind, rest[frames.HEADER.size :][:size]))
            rest = rest[frames.HEADER.size + size :]
        return found

    @property
    def offer(self):
        return next(
            frames.decode(each, Offer) for kind, each in self.frames if kind == frames.OFFER
        )

    @property
    def refusal(self):
        kind, payload = self.frames[-1]
        assert kind == frames.REFUSAL, self.frames
        return frames.decode(payload, Refusal)


def opening(found):
    return (
        frame(frames.HELLO, Hello(frames.PROTOCOL))
        + frame(frames.MANIFEST, frames.compress(found.content))
        + frame(frames.SIGNATURE, found.signature)
    )


def plain(content, offset=0, size=frames.PIECE_SIZE):
    wanted = object_of(content)
    pieces = [content[at : at + size] for at in range(offset, len(content), size)]
    begin = frame(frames.BEGIN, Begin(wanted.sha256, False, offset))
    return begin + b"".join(frame(frames.PIECE, frames.compress(each)) for each in pieces)


def patched(base, content):
    patch = frames.make_patch(base, content)
    one, two = object_of(base), object_of(content)
    begin = Begin(
        two.sha256, False, 0, hashlib.sha256(patch).hexdigest(), len(patch), one.sha256, one.size
    )
    return frame(frames.BEGIN, begin) + frame(frames.PIECE, patch)


SENT = release({"dataflow.yml": FLOW, "model.bin": MODEL})
END = frame(frames.END)


def test_a_whole_transfer_is_taken_and_what_has_arrived_is_reported(robot):
    done = Transfer(robot, opening(SENT) + plain(FLOW) + plain(MODEL) + END)
    assert done.error is None
    kinds = [kind for kind, _ in done.frames]
    assert kinds[0] == frames.OFFER
    assert kinds[-1] == frames.RECEIVED
    assert frames.ARRIVED in kinds
    tree = robot.trees.stage(SENT.id)
    assert (tree.folder / "files/model.bin").read_bytes() == MODEL


def test_a_sender_of_the_release_before_is_understood(robot):
    former = (
        frame(frames.HELLO, Hello(frames.FORMER_PROTOCOL))
        + frame(frames.MANIFEST, SENT.content)
        + frame(frames.SIGNATURE, SENT.signature)
    )
    assert Transfer(robot, former + plain(FLOW) + plain(MODEL) + END).error is None
    assert robot.trees.stage(SENT.id).id == SENT.id


def test_the_next_transfer_continues_where_one_was_cut(robot):
    cut = opening(SENT) + plain(FLOW) + plain(MODEL)
    first = Transfer(robot, cut[: -len(MODEL) // 3])
    assert isinstance(first.error, SenderLostError)
    second = Transfer(robot, opening(SENT))
    (lacking,) = second.offer.lacking
    assert lacking == Lacking(object_of(MODEL).sha256, False, lacking.arrived)
    assert 0 < lacking.arrived < len(MODEL)
    third = Transfer(robot, opening(SENT) + plain(MODEL, lacking.arrived) + END)
    assert third.error is None
    assert robot.trees.stage(SENT.id).entry.read_bytes() == FLOW


def test_a_changed_file_arrives_as_a_patch(robot):
    robot.receive(SENT).stage(SENT.id)
    model = MODEL[:1000] + b"changed" + MODEL[1007:]
    after = release({"dataflow.yml": FLOW, "model.bin": model}, sequence=2)
    done = Transfer(robot, opening(after) + patched(MODEL, model) + END)
    assert done.error is None
    assert done.offer.releases == [SENT.id]
    assert (robot.trees.stage(after.id).folder / "files/model.bin").read_bytes() == model


def test_a_silent_sender_is_given_up(robot):
    done = Transfer(robot, opening(SENT), silence=0.2, end=False)
    assert isinstance(done.error, SenderLostError)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (frame(frames.HELLO, Hello(99)), "protocol"),
        (frame(frames.MANIFEST, frames.compress(SENT.content)), "protocol"),
        (b"\x02\xff\xff\xff\xff", "protocol"),
        (b"\x01\x00\x00\x00\x02{x", "protocol"),
        (
            opening(replace(SENT, content=SENT.content.replace(b'"sequence":1', b'"sequence":7'))),
            "signer",
        ),
        (
            frame(frames.HELLO, Hello(frames.PROTOCOL)) + frame(frames.MANIFEST, b"plain"),
            "protocol",
        ),
        (opening(release(key=OTHER)), "signer"),
        (opening(SENT) + frame(frames.PIECE, frames.compress(b"x")), "protocol"),
        (opening(SENT) + plain(b"something else"), "protocol"),
        (opening(SENT) + plain(FLOW) + plain(FLOW), "protocol"),
        (opening(SENT) + plain(FLOW, offset=5), "protocol"),
        (opening(SENT) + plain(FLOW) + END, "missing"),
        (opening(SENT) + plain(FLOW) + plain(MODEL, size=300_000), "protocol"),
        (
            opening(SENT)
            + frame(frames.BEGIN, Begin(object_of(FLOW).sha256, False, 0))
            + frame(frames.PIECE, frames.compress(FLOW + b"more")),
            "protocol",
        ),
        (
            opening(SENT)
            + frame(frames.BEGIN, Begin(object_of(FLOW).sha256, False, 0))
            + frame(frames.PIECE, frames.compress(bytes(len(FLOW)))),
            "damaged",
        ),
        (
            opening(SENT)
            + frame(frames.BEGIN, Begin(object_of(FLOW).sha256, False, 0))
            + frame(frames.PIECE, b"not compressed"),
            "protocol",
        ),
        (opening(SENT) + patched(b"a base that the robot has not" * 10, FLOW), "protocol"),
    ],
)
def test_a_sender_that_does_not_keep_to_the_protocol_is_refused(robot, content, code):
    done = Transfer(robot, content)
    assert done.error.code == code
    assert done.refusal.code == code
    assert robot.trees.ids() == []


def test_a_bomb_is_refused_before_it_is_unpacked(robot):
    bomb = frames.compress(bytes(1 << 26))
    assert len(bomb) < 2 * frames.PIECE_SIZE
    begin = frame(frames.BEGIN, Begin(object_of(MODEL).sha256, False, 0))
    done = Transfer(robot, opening(SENT) + begin + frame(frames.PIECE, bomb))
    assert done.error.code == "protocol"
    assert robot.trees.objects.partial_size(object_of(MODEL).sha256) == 0
    long = replace(SENT, content=bytes(MAX_MANIFEST + 1))
    assert Transfer(robot, opening(long)).error.code == "protocol"


def test_a_sender_that_only_says_that_it_is_alive_does_not_keep_others_out(robot, monkeypatch):
    monkeypatch.setattr(receive, "IDLE_S", 0.0)
    done = Transfer(robot, opening(SENT) + frame(frames.ALIVE) * 10_000 + plain(FLOW))
    assert isinstance(done.error, SenderLostError)
    with robot.trees.lock(wait=False):
        assert robot.trees.objects.partials() == {}


def test_parts_of_patches_do_not_add_up_over_transfers(robot):
    """Only what is lacking, and the last part of a patch, stays when a transfer is cut."""
    robot.receive(release({"dataflow.yml": FLOW}))
    base, two = object_of(FLOW), object_of(MODEL)
    for number in range(5):
        patch = hashlib.sha256(bytes([number])).hexdigest()
        begin = Begin(two.sha256, False, 0, patch, 1 << 20, base.sha256, base.size)
        cut = frame(frames.BEGIN, begin) + frame(frames.PIECE, bytes(100_000))
        assert isinstance(Transfer(robot, opening(SENT) + cut).error, SenderLostError)
        assert robot.trees.objects.partials() == {patch: 100_000}


def test_a_disk_that_is_full_is_reported_and_leaves_no_parts(robot, monkeypatch):
    written = []

    def write(self, content, real=objects._Writer.write):
        written.append(len(content))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, content)

    monkeypatch.setattr(objects._Writer, "write", write)
    done = Transfer(robot, opening(SENT) + plain(FLOW) + plain(MODEL))
    assert done.error.code == "space"
    assert "is full" in done.refusal.message
    assert robot.trees.objects.partials(10) == {}


def test_a_second_transfer_waits_its_turn_and_then_says_who_has_it(robot, monkeypatch):
    def lock(self, *, wait):
        del self, wait
        raise ReleaseError("busy", "another transfer is in progress", "try again later")

    monkeypatch.setattr("dorad.release.trees.Trees.lock", lock)
    assert Transfer(robot, opening(SENT)).refusal.code == "busy"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8), st.binary())
def test_whatever_a_sender_sends_no_tree_appears_and_nothing_but_a_refusal_is_raised(
    robot, messages, rest
):
    content = opening(SENT) + b"".join(frame(kind, each) for kind, each in messages) + rest
    done = Transfer(robot, content)
    assert done.error is not None
    assert robot.trees.ids() == []


def test_every_message_of_the_protocol_survives_the_way():
    begin = Begin("a" * 64, True, 5, "b" * 64, 7, "c" * 64, 9, True)
    assert frames.decode(msgspec.json.encode(begin), Begin) == begin
    assert begin.base_object == (("c" * 64), 9, True)
    assert receive.MAX_PARTIAL_PATCHES * 100 < frames.MAX_FRAME
    assert sign(b"x")
