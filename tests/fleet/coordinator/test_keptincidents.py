"""What a coordinator keeps of incidents: within its bounds, whole, and nothing else."""

from __future__ import annotations

import errno
import os
import threading
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.incidentfiles import (
    IncidentFile,
    IncidentManifest,
    IncidentsState,
    urgency,
)
from dorad.release import objects
from dorad.release.errors import ReleaseError
from dorad.release.receive import Receiver, SenderLostError
from dorafleet.coordinator import keptincidents
from dorafleet.coordinator.incidentuploads import choose
from dorafleet.coordinator.keptincidents import (
    PER_FILE,
    IncidentArrival,
    IncidentSettings,
    Kept,
    KeptIncidents,
    parse,
    size_of,
    to_remove,
)
from tests.fleet.test_incident_uploads import info, manifest, opening, piece

SOURCES = ("command", "node-failed", "node-restarting", "input-broken", "node grip", "else")
CONTENT = b"x" * 100_000
SIZES = dict(zip("pqrstu", (0, 10_000, 60_000, 140_000, 220_000, 300_000), strict=True))
"""Bytes of files by their hashes, of which each belongs to one content."""

infos = st.builds(
    lambda id_, source, seconds: info(id=id_, source=source, time=float(seconds)),
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(SOURCES),
    st.integers(0, 5),
)


@st.composite
def incidents(draw):
    each = draw(infos)
    names = sorted(draw(st.sets(st.sampled_from(list(SIZES)), min_size=1)))
    return Kept("", each, {name: SIZES[name] for name in names}, {}, 0.0)


@given(st.lists(incidents(), max_size=8, unique_by=lambda each: each.info.key), incidents())
def test_what_makes_room_is_less_urgent_and_no_more_than_needed(kept, new):
    limit = 600_000
    kept = [each for each in kept if each.info.key != new.info.key]
    going = to_remove(kept, new, limit)
    if going is None:
        # Also without all that is less urgent it would be too much.
        staying = [each for each in kept if urgency(each.info) < urgency(new.info)]
        assert size_of([*staying, new]) > limit
        return
    left = [each for each in kept if each not in going]
    assert size_of([*left, new]) <= limit
    assert all(urgency(each.info) > urgency(new.info) for each in going)
    if going:
        assert size_of([*left, going[-1], new]) > limit
        assert max(map(urgency, (each.info for each in left)), default=(0,)) < urgency(
            going[-1].info
        )


def test_small_files_count_as_what_they_cost_the_disk():
    many = {str(number): 1 for number in range(1000)}
    assert size_of([Kept("", info(), many, {}, 0.0)]) == 1000 * PER_FILE


@given(st.lists(infos, max_size=8, unique_by=lambda each: each.key))
def test_the_most_urgent_that_is_lacking_is_chosen_and_marks_of_nodes_come_last(listed):
    state = IncidentsState(incidents=listed)
    present, order = set(), []
    while (each := choose(state, present, set())) is not None:
        present.add(each.key)
        order.append(each)
    assert len(order) == len(listed)
    ranks = [0 if e.source == "command" else 2 if e.source == "node grip" else 1 for e in order]
    assert ranks == sorted(ranks)
    same = [e.time for e in order if e.source == "command"]
    assert same == sorted(same, reverse=True)
    state.pause = "the budget is spent"
    assert choose(state, set(), set()) is None


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(max_size=5), st.lists).map(msgspec.json.encode)
)
def test_a_manifest_of_anything_else_is_refused(content):
    with pytest.raises(ReleaseError) as caught:
        parse(content)
    assert caught.value.code == "manifest"


def test_one_name_for_two_files_is_refused():
    files = [IncidentFile(name="1.mcap", sha256=each * 64, size=1) for each in "ab"]
    with pytest.raises(ReleaseError, match="twice"):
        parse(msgspec.json.encode(IncidentManifest(info=info(), files=files)))


def receive(kept, manifest_, sent, robot="arm1"):
    """Let a robot upload; return the error."""
    key = parse(manifest_).info.key
    arrival = IncidentArrival(kept.of(robot), key)
    source, sink = os.pipe()
    answers, answered = os.pipe()
    try:
        writer = threading.Thread(target=lambda: (os.write(sink, sent), os.close(sink)))
        writer.start()
        try:
            Receiver(arrival, source, answered, silence=10.0).run()
        except ReleaseError as error:
            return error
        finally:
            writer.join(10.0)
            kept.release(robot)
    finally:
        for number in (source, answers, answered):
            os.close(number)
    return None


def sha_of(manifest_):
    return parse(manifest_).files[0].sha256


def send(kept, content=CONTENT, robot="arm1", **more):
    made = manifest(content)
    if more:
        decoded = parse(made)
        changed = msgspec.structs.replace(decoded.info, **more)
        made = msgspec.json.encode(msgspec.structs.replace(decoded, info=changed))
    return receive(kept, made, opening(made) + piece(sha_of(made), content), robot)


@pytest.fixture
def kept(tmp_path):
    return KeptIncidents(tmp_path / "incidents", IncidentSettings())


def ids(kept, robot="arm1"):
    return [each.info.id for each in kept.of(robot).kept]


def test_a_disk_that_fills_up_in_the_middle_is_reported_and_the_next_try_completes(
    kept, monkeypatch
):
    def write(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(objects._Writer, "write", write)
        error = send(kept)
    assert (error.code, "is full" in error.message) == ("space", True)
    assert ids(kept) == []
    assert send(kept) is None
    assert ids(kept) == ["dock"]


@pytest.mark.parametrize("step", ["sync_file_system", "write_whole"])
def test_a_disk_that_is_full_at_the_last_write_makes_no_incident(kept, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keptincidents, step, full)
        assert send(kept).code == "space"
    assert ids(KeptIncidents(kept.folder, IncidentSettings())) == []


def test_room_for_the_database_stays_free(kept, monkeypatch):
    blocks = (keptincidents.RESERVE + 50_000) // 4096
    full = os.statvfs_result((4096, 4096, 9 << 20, blocks, blocks, 1000, 1000, 1000, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(keptincidents.os, "statvfs", lambda _: full)
        error = send(kept)
    assert (error.code, "stay free" in error.message) == ("space", True)
    assert send(kept) is None


def test_the_limit_of_all_robots_is_kept_although_several_upload_at_a_time(kept):
    kept.settings = IncidentSettings(limit=250_000)
    assert send(kept) is None
    two, three = (kept.of(name) for name in ("arm2", "arm3"))
    for each in (two, three):
        each.folder.mkdir(parents=True)
    kept.reserve(two.folder, 100_000)
    with pytest.raises(ReleaseError, match="all robots together"):
        kept.reserve(three.folder, 100_000)
    kept.release("arm2")
    kept.reserve(three.folder, 100_000)
    kept.release("arm3")
    assert send(kept, b"z" * 200_000, "arm3").code == "space"


def test_what_is_too_old_goes_and_does_not_come_again(kept):
    kept.settings = IncidentSettings(keep_s=3600.0)
    assert send(kept) is None
    manifests = kept.of("arm1").folder / "manifests"
    (path,) = manifests.iterdir()
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    again = KeptIncidents(kept.folder, kept.settings)
    again.load()
    again.collect()
    assert ids(again) == []
    assert again.used == 0
    (why,) = again.of("arm1").removed.values()
    assert "kept" in why
    # Once the robot does not have it any more, nothing is remembered of it.
    again.of("arm1").forget_removed([])
    assert KeptIncidents(kept.folder, kept.settings).of("arm1").removed == {}


def test_an_upload_that_nobody_continues_is_given_up_after_a_week(kept):
    made = manifest(CONTENT)
    with pytest.raises(SenderLostError):
        receive(kept, made, opening(made) + piece(sha_of(made), CONTENT)[:-10])
    robot = kept.of("arm1")
    assert robot.arrived.keys() == {info().key}
    for path in (robot.folder / "arriving").iterdir():
        os.utime(path, (1.0, 1.0))
    again = KeptIncidents(kept.folder, kept.settings)
    again.load()
    again.collect()
    assert again.of("arm1").arrived == {}
    assert again.used == 0


def test_a_file_that_was_damaged_on_the_disk_is_noticed_at_the_next_start(kept):
    assert send(kept) is None
    (path,) = [each for each in (kept.of("arm1").folder / "objects").rglob("*") if each.is_file()]
    path.chmod(0o600)
    path.write_bytes(b"short")
    assert ids(KeptIncidents(kept.folder, kept.settings)) == []


def test_a_robot_s_name_leads_to_no_other_folder(kept):
    for name in ("..", ".", "a"):
        assert kept.of(name).folder.parent == kept.folder
        assert kept.of(name).folder.name == f"robot-{name}"
